# ruff: noqa: T201 - handlers print
from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import threading
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from taskflow_core.domain.phases import Reason
from taskflow_core.domain.task import Progress
from taskflow_worker.sdk import Context, Stopped
from taskflow_worker.sdk.testing import run


class Order(BaseModel):
    item: str
    due: date


@dataclass
class Total:
    items: int
    last: date


def report(order: Order, factor: int = 1, *, context: Context) -> Total:
    text = context.input("sales.csv").read_text()
    with context.open_output("summary.txt") as file:
        file.write(text.upper().encode())
    print("read", len(text))
    logging.getLogger("shop").info("done")
    context.progress(1, 2)
    context.progress(2, 2, "all")
    context.checkpoint({"row": context.attempt})
    return Total(items=len(text) * factor, last=order.due)


def test_a_handler_runs_without_any_server(tmp_path: Path) -> None:
    (tmp_path / "sales.csv").write_text("tea")
    outcome = run(
        report,
        Order(item="tea", due=date(2026, 3, 1)),
        factor=2,
        inputs={"sales.csv": tmp_path / "sales.csv"},
        outputs=["summary.txt"],
        attempt=4,
    )
    assert outcome.succeeded
    assert outcome.failure is None
    assert outcome.result == {"items": 6, "last": "2026-03-01"}
    assert outcome.outputs == {"summary.txt": b"TEA"}
    assert outcome.progress == (Progress(done=1, total=2), Progress(done=2, total=2, message="all"))
    assert outcome.checkpoint == {"row": 4}
    assert [line.split(" ", 1)[1] for line in outcome.logs.splitlines()] == ["stdout read 3", "INFO shop: done"]


def test_a_registered_handler_runs_by_its_name() -> None:
    import taskflow_worker.handlers.builtin  # noqa: F401, PLC0415 - registers what this test names

    assert run("taskflow.echo", value=[1]).result == [1]
    unknown = run("no.such").failure
    assert unknown is not None
    assert unknown.reason is Reason.UNKNOWN_HANDLER


def test_arguments_are_checked_as_in_a_worker() -> None:
    failure = run(report, {"item": 3}).failure
    assert failure is not None
    assert failure.reason is Reason.INVALID_ARGUMENTS
    assert "order['item']: Input should be a valid string" in failure.message
    assert "order['due']: Field required" in failure.message


def test_the_test_kit_refuses_what_a_worker_refuses() -> None:
    def forgets(context: Context) -> None:
        context.input("a")

    missing = run(forgets, outputs=["o"]).failure
    assert missing is not None
    assert missing.reason is Reason.HANDLER_ERROR
    assert "declares no input 'a'" in missing.message
    unwritten = run(lambda: None, outputs=["o"]).failure
    assert unwritten is not None
    assert unwritten.reason is Reason.OUTPUT_MISSING


def test_the_next_attempt_gets_the_checkpoint_of_the_last() -> None:
    def resume(context: Context) -> Any:
        return [context.attempt, context.last_checkpoint]

    assert run(resume).result == [1, None]
    assert run(resume, attempt=2, checkpoint={"row": 3}).result == [2, {"row": 3}]


def test_a_handler_can_be_told_to_stop() -> None:
    def polite(context: Context) -> str:
        return "stopped early" if context.cancelled else "done"

    def checks(context: Context) -> None:
        context.check()

    assert run(polite, cancelled=True).result == "stopped early"
    assert run(polite).result == "done"
    stopped = run(checks, cancelled=True).failure
    assert stopped is not None
    assert stopped.reason is Reason.CANCELLED


def test_except_exception_does_not_swallow_a_stop() -> None:
    def careless(context: Context) -> None:
        try:
            context.check()
        except Exception:  # noqa: BLE001 - the careless handler of this test
            return

    assert not run(careless, cancelled=True).succeeded


def test_a_coroutine_runs_to_its_end() -> None:
    async def twice(order: Order) -> list[str]:
        return list(await asyncio.gather(*(shout(order.item) for _ in range(2))))

    async def shout(text: str) -> str:
        await asyncio.sleep(0)
        return text.upper()

    assert run(twice, Order(item="tea", due=date(2026, 3, 1))).result == ["TEA", "TEA"]


def test_a_coroutine_is_cancelled_where_it_waits() -> None:
    cleaned = []

    async def waits() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.append(True)

    failure = run(waits, cancelled=True).failure
    assert failure is not None
    assert failure.reason is Reason.CANCELLED


def test_a_coroutine_that_succeeds_after_its_cancellation_has_succeeded() -> None:
    async def finishes() -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "saved"
        return "never"

    async def begins() -> str:
        return await asyncio.shield(asyncio.ensure_future(asyncio.sleep(0, "quick")))

    assert run(begins).result == "quick"
    outcome = run(finishes, cancelled=True)
    # Cancelled before its first step it cannot save anything; that is how asyncio cancels.
    assert outcome.failure is None or outcome.failure.reason is Reason.CANCELLED


def test_threads_may_report() -> None:
    def parallel(context: Context) -> None:
        threads = [threading.Thread(target=context.progress, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert sorted(each.done for each in run(parallel).progress) == list(range(8))


def test_an_author_imports_no_celery() -> None:
    script = "import sys, taskflow_worker.sdk, taskflow_worker.sdk.testing; sys.exit('celery' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_a_stop_is_no_exception() -> None:
    assert not issubclass(Stopped, Exception)
    with pytest.raises(Stopped):
        raise Stopped
