from __future__ import annotations

import json

from taskflow_core.domain.message import Message
from tests.builders import UID, make_message


def test_a_message_reads_back_from_its_json() -> None:
    message = make_message(
        args=[1, None, {"a": [None]}],
        kwargs={"b": None},
        inputs=[{"name": "i", "key": "k"}],
        outputs=[{"name": "o", "contentType": "text/plain"}],
        priority=7,
    )
    text = json.dumps(message.model_dump(mode="json", by_alias=True))
    assert Message.model_validate(json.loads(text)) == message


def test_every_delivery_of_an_attempt_has_the_same_id() -> None:
    assert make_message(attempt=3).member == f"{UID}:3"


def test_a_field_of_a_newer_operator_is_passed_over() -> None:
    wire = make_message().model_dump(mode="json", by_alias=True) | {"ofANewerVersion": 5}
    assert Message.model_validate(wire) == make_message()
