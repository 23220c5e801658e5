from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from taskflow_core.domain.events import Advance
from taskflow_core.domain.phases import Reason
from taskflow_core.domain.task import MAX_CHECKPOINT_BYTES, Progress
from taskflow_worker.attempts.execution import _deadline
from taskflow_worker.sdk import Context, Stopped
from tests.builders import NOW, make_message


def make(reports: list[Advance] | None = None, stop: Reason | None = None, **fields: Any) -> Context:
    report = (reports if reports is not None else []).append
    known: dict[str, Any] = {"inputs": {}, "outputs": {}, **fields}
    return Context(
        uid="u", namespace="n", name="t", attempt=1, token="", _stop_requested=lambda: stop, _report=report, **known
    )


def test_progress_is_reported() -> None:
    reports: list[Advance] = []
    context = make(reports)
    context.progress(3)
    context.progress(4, 10, "x" * 5000)
    assert reports[0] == Advance(progress=Progress(done=3))
    assert reports[1].progress == Progress(done=4, total=10, message="x" * 1024)


@pytest.mark.parametrize(("done", "total"), [(-1, None), (0.5, None), (1, -1), ("many", None)])
def test_progress_is_counted_in_whole_numbers(done: Any, total: Any) -> None:
    with pytest.raises(ValueError, match="Progress"):
        make().progress(done, total)


def test_a_checkpoint_is_reported_as_json() -> None:
    reports: list[Advance] = []
    make(reports).checkpoint({"row": 17, "on": NOW.date()})
    (advance,) = reports
    assert advance.progress is None
    assert json.loads(advance.checkpoint or "") == {"row": 17, "on": "2026-03-01"}


def test_a_checkpoint_has_a_limit_in_bytes() -> None:
    reports: list[Advance] = []
    context = make(reports)
    context.checkpoint("é" * (MAX_CHECKPOINT_BYTES // 2 - 1))
    with pytest.raises(ValueError, match=f"the checkpoint is 4098 bytes of JSON, at most {MAX_CHECKPOINT_BYTES}"):
        context.checkpoint("é" * (MAX_CHECKPOINT_BYTES // 2))
    assert len(reports) == 1


@pytest.mark.parametrize("value", [object(), float("nan"), "\ud800"])
def test_a_checkpoint_without_a_json_form_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="has no JSON form"):
        make().checkpoint(value)


def test_an_attempt_that_may_continue() -> None:
    context = make()
    assert not context.cancelled
    context.check()


def test_an_attempt_that_must_stop() -> None:
    context = make(stop=Reason.CANCELLED)
    assert context.cancelled
    with pytest.raises(Stopped, match="the Task was cancelled"):
        context.check()


def test_files_may_be_used_as_streams(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"abc")
    context = make(inputs={"a": tmp_path / "in"}, outputs={"b": tmp_path / "out"})
    with context.open_input("a") as source, context.open_output("b") as target:
        target.write(source.read(2))
    assert (tmp_path / "out").read_bytes() == b"ab"
    with pytest.raises(KeyError, match="no input 'x'; it declares: a"):
        context.open_input("x")
    with pytest.raises(KeyError, match="no output 'x'; it declares: b"):
        context.open_output("x")


@pytest.mark.parametrize(
    ("message", "seconds"),
    [
        ({}, None),
        ({"attempt_timeout_seconds": 60}, 60),
        ({"active_deadline_seconds": 30}, 30),
        ({"attempt_timeout_seconds": 60, "active_deadline_seconds": 30}, 30),
        ({"attempt_timeout_seconds": 10, "active_deadline_seconds": 30}, 10),
        # A later attempt: the rest of the Task's deadline counts.
        ({"active_deadline_seconds": 30, "deadline": NOW + timedelta(seconds=7)}, 7),
        ({"attempt_timeout_seconds": 5, "deadline": NOW + timedelta(seconds=7)}, 5),
    ],
)
def test_the_deadline_is_the_earlier_of_timeout_and_task_deadline(message: dict[str, Any], seconds: int | None) -> None:
    expected = None if seconds is None else NOW + timedelta(seconds=seconds)
    assert _deadline(make_message(**message), NOW) == expected
    assert datetime.now(UTC) > NOW
