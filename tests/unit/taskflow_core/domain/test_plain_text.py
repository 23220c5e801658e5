from __future__ import annotations

from typing import Any

import pytest

from taskflow_core.domain.chunks import ChunkEnd
from taskflow_core.domain.events import Advance, Event, EventKind, Failure
from taskflow_core.domain.plain_text import plain
from taskflow_operator.tasks.rules import transitions
from tests.builders import UID, make_task

EVIL = "\x1b[2J\x1b]0;owned\x07 \x9b31m \r over \x00 \x7f \u202egnp.exe\u2066 \u2028 \ud800"


def harmless(text: str) -> bool:
    text.encode()
    return all(character.isprintable() or character in "\n\t" for character in text)


@pytest.mark.parametrize("character", [*map(chr, range(32)), *map(chr, range(127, 160)), *"\u202a\u202e\u2069\u200f"])
def test_what_controls_a_terminal_is_replaced_and_lines_and_tabs_stay(character: str) -> None:
    said = plain(f"a{character}b")
    assert said == (f"a{character}b" if character in "\n\t" else "a\N{REPLACEMENT CHARACTER}b")


@pytest.mark.parametrize("text", ["Ünïcödé 日本語 🙂", "two\nlines\tand a tab", "", "a\N{NO-BREAK SPACE}b"])
def test_other_text_is_left_as_it_is(text: str) -> None:
    assert plain(text) == text


def test_lines_of_windows_are_lines() -> None:
    assert plain("a\r\nb") == "a\nb"


def test_no_text_of_a_worker_brings_a_control_character_into_the_status() -> None:
    payload = {"reason": "HandlerError", "type": EVIL, "message": EVIL, "trace": EVIL}
    event = Event(id="1-0", kind=EventKind.FAILED, uid=UID, attempt=1, worker=f"pod{EVIL}", time_ms=1, payload=payload)
    status = transitions.ended(make_task(retryPolicy={"maxAttempts": 1}), event, 0.5)
    assert all(harmless(text) for text in texts(status.to_object()))
    progress = Advance.model_validate({"progress": {"done": 1, "message": EVIL}})
    assert all(harmless(text) for text in texts(transitions.advanced(make_task(), progress).to_object()))


def test_nor_do_the_errors_of_items() -> None:
    end = ChunkEnd.model_validate({"errors": [{"index": 0, "reason": "HandlerError", "type": EVIL, "message": EVIL}]})
    assert harmless(end.errors[0].type + end.errors[0].message)
    assert harmless(Failure.model_validate({"reason": "HandlerError", "message": EVIL}).message)


def texts(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for item in value.values() for text in texts(item)]
    if isinstance(value, list):
        return [text for item in value for text in texts(item)]
    return [value] if isinstance(value, str) else []
