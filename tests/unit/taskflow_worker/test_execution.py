from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from taskflow_core.blobs.store import Stored
from taskflow_core.domain.events import Continuation, Failure, Success
from taskflow_core.domain.message import Message
from taskflow_core.domain.phases import Reason
from taskflow_core.domain.task import MAX_MESSAGE_CHARS, MAX_RESULT_BYTES, StoredOutput
from taskflow_core.errors import Forbidden, NotFound, TaskflowError, Unavailable
from taskflow_worker.attempts import retrying
from taskflow_worker.attempts.execution import run_attempt
from taskflow_worker.attempts.retrying import retry_while_unavailable
from taskflow_worker.sdk.context import Context
from taskflow_worker.sdk.failures import AttemptFailed
from taskflow_worker.sdk.registry import Registry
from tests.builders import UID, make_message


@dataclass
class FakeObjects:
    """Objects in memory. `failures` are raised first, one per call."""

    content: dict[str, bytes] = field(default_factory=dict)
    failures: list[TaskflowError] = field(default_factory=list)
    types: dict[str, str] = field(default_factory=dict)

    def get_to_file(self, key: str, path: Path) -> Stored:
        self._fail()
        if key not in self.content:
            raise NotFound(key)
        path.write_bytes(self.content[key])
        return Stored(size=len(self.content[key]), sha256="in")

    def put_file(self, key: str, path: Path, content_type: str) -> Stored:
        self._fail()
        self.content[key] = path.read_bytes()
        self.types[key] = content_type
        return Stored(size=path.stat().st_size, sha256="out")

    def _fail(self) -> None:
        if self.failures:
            raise self.failures.pop(0)


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of all scratch folders, to check that they are removed."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def attempt(
    function: Callable[..., Any], objects: FakeObjects | None = None, *, patience: float = 0, **message: Any
) -> Success | Continuation | Failure:
    registry = Registry()
    registry.add("h", function)
    return run_attempt(make_message(handler="h", **message), registry, objects or FakeObjects(), patience=patience)


def failure(function: Callable[..., Any], objects: FakeObjects | None = None, **message: Any) -> Failure:
    outcome = attempt(function, objects, **message)
    assert isinstance(outcome, Failure)
    return outcome


def returning(value: Any) -> Callable[[], Any]:
    return lambda: value


def raising(error: BaseException) -> Callable[[], Any]:
    def fail() -> None:
        raise error

    return fail


def test_a_handler_gets_its_inputs_and_its_outputs_are_stored(scratch: Path) -> None:
    def summarise(factor: int, context: Context) -> dict[str, Any]:
        text = context.input("sales").read_text()
        context.output("summary").write_text(text * factor)
        return {"attempt": context.attempt, "uid": context.uid, "name": f"{context.namespace}/{context.name}"}

    objects = FakeObjects({"team-a/in/sales.csv": b"ab"})
    outcome = attempt(
        summarise,
        objects,
        attempt=2,
        args=[3],
        inputs=[{"name": "sales", "key": "in/sales.csv"}],
        outputs=[{"name": "summary", "contentType": "text/csv"}],
    )
    assert isinstance(outcome, Success)
    key = f"team-a/{UID}/2/summary"
    assert outcome.result == {"attempt": 2, "uid": UID, "name": "team-a/report"}
    assert outcome.outputs == (
        StoredOutput(name="summary", key=key, size_bytes=6, sha256="out", content_type="text/csv"),
    )
    assert (objects.content[key], objects.types[key]) == (b"ababab", "text/csv")
    assert list(scratch.iterdir()) == []


def test_the_run_time_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter([10.0, 11.5])
    monkeypatch.setattr("taskflow_worker.attempts.execution.time.monotonic", lambda: next(ticks))
    assert attempt(returning(None)).run_ms == 1500


def test_a_missing_input_is_final_and_names_the_object() -> None:
    found = failure(returning(1), inputs=[{"name": "a", "key": "x/y"}])
    assert found.reason is Reason.INPUT_MISSING
    assert "there is no object 'team-a/x/y'" in found.message


def test_the_handler_does_not_run_without_its_inputs() -> None:
    calls: list[int] = []
    failure(lambda: calls.append(1), inputs=[{"name": "a", "key": "x"}])
    assert calls == []


def test_a_declared_output_that_was_not_written_is_final() -> None:
    found = failure(returning(1), outputs=[{"name": "o"}])
    assert found.reason is Reason.OUTPUT_MISSING
    assert "context.output('o')" in found.message


def test_a_folder_is_not_accepted_as_an_output() -> None:
    def make(context: Context) -> None:
        context.output("o").mkdir()

    assert failure(make, outputs=[{"name": "o"}]).reason is Reason.OUTPUT_MISSING


@pytest.mark.parametrize("error", [Unavailable("down"), Forbidden("no right")])
def test_an_unavailable_store_is_a_retryable_failure(error: TaskflowError, scratch: Path) -> None:
    found = failure(returning(1), FakeObjects(failures=[error]), inputs=[{"name": "a", "key": "x"}])
    assert (found.reason, found.type, found.message) == (
        Reason.STORAGE_UNAVAILABLE,
        type(error).__name__,
        str(error),
    )
    assert list(scratch.iterdir()) == []


def test_an_output_that_cannot_be_stored_is_a_retryable_failure() -> None:
    def write(context: Context) -> None:
        context.output("o").write_text("x")

    found = failure(write, FakeObjects(failures=[Unavailable("down")]), outputs=[{"name": "o"}])
    assert found.reason is Reason.STORAGE_UNAVAILABLE


class DomainError(Exception):
    pass


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (ValueError("no rows"), "ValueError", "no rows"),
        (DomainError("x"), "tests.unit.taskflow_worker.test_execution.DomainError", "x"),
        (SystemExit(3), "SystemExit", "3"),
        (KeyboardInterrupt(), "KeyboardInterrupt", ""),
        (GeneratorExit(), "GeneratorExit", ""),
        (Unavailable("their own"), "taskflow_core.errors.Unavailable", "their own"),
    ],
)
def test_whatever_a_handler_raises_ends_the_attempt_and_not_the_worker(
    error: BaseException, kind: str, message: str, scratch: Path
) -> None:
    found = failure(raising(error))
    assert (found.reason, found.type, found.message) == (Reason.HANDLER_ERROR, kind, message)
    assert list(scratch.iterdir()) == []


def test_a_handler_may_raise_attempt_failed() -> None:
    found = failure(raising(AttemptFailed(Reason.INPUT_MISSING, "empty file")))
    assert (found.reason, found.message) == (Reason.INPUT_MISSING, "empty file")


def test_wrong_arguments_and_unknown_handlers_touch_no_object() -> None:
    objects = FakeObjects(failures=[Unavailable("never asked")])
    wrong = failure(lambda n: n, objects, args=[1, 2], inputs=[{"name": "a", "key": "x"}])
    assert wrong.reason is Reason.INVALID_ARGUMENTS
    unknown = run_attempt(make_message(handler="nope"), Registry(), objects, patience=0)
    assert isinstance(unknown, Failure)
    assert unknown.reason is Reason.UNKNOWN_HANDLER
    assert len(objects.failures) == 1


@pytest.mark.parametrize(
    "value",
    [
        object(),
        float("nan"),
        float("inf"),
        "\ud800",
        {(1, 2): 3},
        10**5000,
    ],
    ids=["object", "nan", "inf", "lone surrogate", "tuple key", "too many digits"],
)
def test_a_result_without_a_json_form_is_final(value: Any) -> None:
    found = failure(returning(value))
    assert found.reason is Reason.RESULT_NOT_SERIALISABLE
    assert found.message.startswith("h returned ")
    found.model_dump_json()


def test_a_result_that_contains_itself_is_final() -> None:
    value: list[Any] = []
    value.append(value)
    assert failure(returning(value)).reason is Reason.RESULT_NOT_SERIALISABLE


@pytest.mark.parametrize(
    ("value", "fits"),
    [
        ("x" * (MAX_RESULT_BYTES - 2), True),
        ("x" * (MAX_RESULT_BYTES - 1), False),
        ("é" * (MAX_RESULT_BYTES // 2 - 1), True),
        ("é" * (MAX_RESULT_BYTES // 2), False),
        ("\U0001f40d" * (MAX_RESULT_BYTES // 4), False),
    ],
)
def test_a_result_is_measured_in_bytes(value: str, fits: bool) -> None:
    outcome = attempt(returning(value))
    if fits:
        assert isinstance(outcome, Success)
        assert outcome.result == value
    else:
        assert isinstance(outcome, Success)
        assert outcome.result == {"artifact": "result.json"}
        assert [output.name for output in outcome.outputs] == ["result.json"]


def test_a_result_has_the_types_of_json() -> None:
    outcome = attempt(returning({"t": (1, 2), 3: None, "f": 1.0}))
    assert isinstance(outcome, Success)
    assert outcome.result == {"t": [1, 2], "3": None, "f": 1.0}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x" * 5000, "x" * MAX_MESSAGE_CHARS),
        ("é" * 5000, "é" * MAX_MESSAGE_CHARS),
        ("bad \ud800 half", "bad \\ud800 half"),
    ],
)
def test_a_message_is_cut_and_has_a_utf8_form(text: str, expected: str) -> None:
    found = failure(raising(ValueError(text)))
    assert found.message == expected
    assert json.loads(found.model_dump_json(by_alias=True))["message"] == expected


class Unprintable(Exception):  # noqa: N818
    def __str__(self) -> str:
        raise ValueError("no words")


class Frame:
    """A type that pydantic has no schema for."""


def hinted(value: Any) -> Any:
    return value


@pytest.mark.parametrize("hint", ["OnlyWhileTypeChecking", Frame], ids=["unknown name", "no schema"])
def test_a_hint_that_cannot_be_used_ends_the_attempt_and_not_the_worker(
    hint: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(hinted.__annotations__, "value", hint)
    assert isinstance(attempt(hinted, args=[1]), Failure)


def test_an_error_that_cannot_be_printed_ends_the_attempt_and_not_the_worker() -> None:
    assert failure(raising(Unprintable())).type.endswith("Unprintable")


def test_a_full_disk_ends_the_attempt_and_not_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/nonexistent")
    assert isinstance(attempt(returning(1), outputs=[{"name": "report.csv"}]), Failure)
    # An attempt without files needs no disk.
    assert isinstance(attempt(returning(1)), Success)


def test_a_deeply_nested_result_can_be_reported() -> None:
    value: Any = None
    for _ in range(300):
        value = [value]
    attempt(returning(value)).model_dump_json(by_alias=True)


def test_attempts_do_not_share_files(scratch: Path) -> None:
    seen: list[Path] = []

    def look(context: Context) -> None:
        seen.append(context.output("o").parent)
        assert os.listdir(context.output("o").parent) == []  # noqa: PTH208 - the plain question
        context.output("o").write_text("x")

    attempt(look, outputs=[{"name": "o"}])
    attempt(look, outputs=[{"name": "o"}])
    assert seen[0] != seen[1]
    assert list(scratch.iterdir()) == []


class FakeTime:
    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    fake = FakeTime()
    monkeypatch.setattr(retrying, "time", fake)
    return fake


def failing(times: int) -> Callable[[], str]:
    left = [times]

    def action() -> str:
        if left[0]:
            left[0] -= 1
            raise Unavailable("down")
        return "done"

    return action


def test_an_action_is_retried_through_an_outage(clock: FakeTime) -> None:
    assert retry_while_unavailable(failing(5), what="x", seconds=60) == "done"
    assert len(clock.slept) == 5


def test_the_backoff_grows_up_to_its_maximum(clock: FakeTime) -> None:
    retry_while_unavailable(failing(12), what="x", seconds=3600)
    assert all(0 < wait <= 5 for wait in clock.slept)
    assert clock.slept[0] <= 0.2
    assert clock.slept[-1] >= 2.5


def test_retries_end_on_time_with_the_last_error(clock: FakeTime) -> None:
    with pytest.raises(Unavailable, match="down"):
        retry_while_unavailable(failing(10**6), what="x", seconds=30)
    assert clock.now == pytest.approx(130)


def test_zero_seconds_mean_one_try(clock: FakeTime) -> None:
    with pytest.raises(Unavailable):
        retry_while_unavailable(failing(1), what="x", seconds=0)
    assert clock.slept == []


def test_any_other_error_is_raised_at_once(clock: FakeTime) -> None:
    def missing() -> None:
        raise NotFound("x")

    with pytest.raises(NotFound):
        retry_while_unavailable(missing, what="x", seconds=60)
    assert clock.slept == []


def test_a_message_survives_its_json_form() -> None:
    message = make_message(args=[1])
    assert Message.model_validate(message.model_dump(mode="json", by_alias=True)) == message
