"""Which values of a payload are refused, because a handler would not get them as they were sent."""

import json

import pytest

from taskflow_api.tasks.payload import MAX_ERRORS, not_kept
from tests.unit.taskflow_api.fakes import Api

TASKS = "/v1/namespaces/team-a/tasks"
KEPT = [
    "9223372036854775807",
    "-9223372036854775808",
    "9223372036854776000",
    "10000000000000000000",
    "1e22",
    "1.0",
    "5e-324",
]
"""An API server returns the same numbers. The third is what it makes of the first one that it changes."""
CHANGED = ["9223372036854775808", "-9223372036854775809", "18446744073709551615", "123456789012345678901234"]
NO_NUMBERS = ["1e400", "-1e400", "NaN", "Infinity", "1" + "0" * 400]


def body(name: str, spec: str) -> bytes:
    return f'{{"name": "{name}", "spec": {{"handler": "a.b", {spec}}}}}'.encode()


@pytest.mark.parametrize("number", KEPT)
def test_numbers_that_the_api_server_keeps(number: str) -> None:
    assert list(not_kept(json.loads(number), ())) == []


@pytest.mark.parametrize("number", [*CHANGED, *NO_NUMBERS])
@pytest.mark.parametrize(
    ("spec", "pointer"),
    [
        ('"args": [1, %s]', "/spec/args/1"),
        ('"kwargs": {"a/b": {"n": [%s]}}', "/spec/kwargs/a~1b/n/0"),
        ('"array": {"items": [{"n": 1}, {"n": %s}]}', "/spec/array/items/1/n"),
    ],
)
async def test_others_are_refused_in_one_task_and_in_a_batch(number: str, spec: str, pointer: str) -> None:
    api, text = Api(), body("x", spec.replace("%s", number))
    answer = await api.call("POST", TASKS, text)
    assert (answer.status, [each["pointer"] for each in answer.json["errors"]]) == (422, [pointer])
    batch = await api.call("POST", TASKS + ":batch", b'{"items": [' + body("y", '"args": []') + b"," + text + b"]}")
    good, bad = batch.json["items"]
    assert (good["status"], bad["status"]) == (201, 422)
    assert bad["problem"]["errors"] == answer.json["errors"]
    assert [path.rpartition("/")[2] for path in api.kube.objects] == ["y"]


def test_the_caller_is_told_what_would_become_of_a_number() -> None:
    (fault,) = not_kept(9223372036854775808, ("spec", "args", "0"))
    assert fault.detail == (
        "expected an integer of at most 64 bits; Kubernetes would make 9.223372036854776e+18 of it: send it as a string"
    )


@pytest.mark.parametrize(
    ("value", "pointer"), [('{"n": "\\ud800"}', "/spec/args/0/n"), ('{"\\ud800": 1}', "/spec/args/0")]
)
async def test_half_a_character_is_refused(value: str, pointer: str) -> None:
    answer = await Api().call("POST", TASKS, body("x", f'"args": [{value}]'))
    assert (answer.status, [each["pointer"] for each in answer.json["errors"]]) == (422, [pointer])


async def test_an_answer_has_not_all_of_many_faults() -> None:
    answer = await Api().call("POST", TASKS, {"name": "x", "spec": {"handler": "a", "args": [[2**64 - 1] * 1000]}})
    assert len(answer.json["errors"]) == MAX_ERRORS
