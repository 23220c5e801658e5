"""What a handler does to the output of its process is over with its attempt, and its log has all of it once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from taskflow_core.domain.events import EventKind
from taskflow_local.stack import Stack
from tests.e2e.product import eventually
from tests.integration.taskflow_worker.process import Workers, log_of

pytestmark = pytest.mark.integration
TRACE = "ERROR taskflow.attempt: RuntimeError: on purpose"


def test_no_attempt_loses_its_trace_or_its_streams_to_an_earlier_one(workers: Workers, minio: Stack) -> None:
    store = workers.keep_logs(minio)
    workers.environment["TASKFLOW_WORKER_HANDLERS"] = "e2e_output"
    workers.start("a", concurrency=1)

    def run(uid: str, handler: str, kind: EventKind = EventKind.SUCCEEDED, **kwargs: Any) -> list[str]:
        workers.send([uid], handler, **kwargs)
        eventually(lambda: [event.uid for event in workers.told(kind)], lambda uids: uid in uids, 60)
        return log_of(store, uid)

    # Logging was configured when the handlers were imported.
    imported = run("imported", "output.fails", EventKind.FAILED)
    assert imported.count(TRACE) == 1
    assert [line for line in imported if "about to fail" in line] == ["stdout own: about to fail"]
    assert run("configures", "output.fails", EventKind.FAILED, configure=True).count(TRACE) == 1
    after = run("after", "output.fails", EventKind.FAILED)
    assert after.count(TRACE) == 1
    assert [line for line in after if "about to fail" in line] == ["stdout own: about to fail"]

    assert run("wraps", "output.wraps") == ["stdout <stdout> é"]
    assert run("says", "output.says", text="é\U0001f40d") == ["stdout é\U0001f40d"] * 2
    # The worker's own log has all attempts.
    ended = [line for line in workers.log("a").read_text().splitlines() if '"attempt_ended"' in line]
    assert len(ended) == 5


def test_output_of_programs_does_not_stay_in_memory(workers: Workers, minio: Stack) -> None:
    store = workers.keep_logs(minio)
    workers.environment |= {"TASKFLOW_WORKER_HANDLERS": "e2e_output", "TASKFLOW_WORKER_LOG_LIMIT_BYTES": "1000000"}
    workers.start("a", concurrency=1)
    workers.send(["floods"], "output.floods")
    workers.finished(["floods"], seconds=300)
    *_, dropped = log_of(store, "floods")
    count = int(dropped.removeprefix("taskflow ").removesuffix(" bytes of output were dropped"))
    assert 398 * 2**20 < count < 400 * 2**20


def test_a_hint_that_cannot_be_evaluated_ends_the_worker_at_its_start(workers: Workers, tmp_path: Path) -> None:
    (tmp_path / "hinted.py").write_text(
        "from __future__ import annotations\n"
        "from typing import TYPE_CHECKING\n"
        "from taskflow_worker.sdk import handler\n"
        "if TYPE_CHECKING:\n"
        "    from decimal import Decimal\n"
        "@handler('sums.total')\n"
        "def total(value: Decimal) -> Decimal:\n"
        "    return value\n"
    )
    workers.environment |= {"TASKFLOW_WORKER_HANDLERS": "hinted", "PYTHONPATH": str(tmp_path)}
    assert workers.once("a", "nobody").wait(120) == 2
    assert workers.log("a").read_text() == (
        "taskflow-worker: handler 'sums.total' (hinted.total): the type hint 'Decimal' of parameter 'value' cannot be "
        "used to check arguments: NameError: name 'Decimal' is not defined; import it also at run time, not only if "
        "TYPE_CHECKING\n"
    )
