"""Working on operations: any API process may take one, and goes on where the last one was."""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Protocol

from pydantic import ValidationError

from taskflow_api.auth import Caller, Gate, Method
from taskflow_api.operations.model import read_caller, wanted
from taskflow_api.problems import ProblemError, problem_of
from taskflow_api.tasks.creating import FIELD_MANAGER, MAX_PREFIX, again
from taskflow_core.domain import naming
from taskflow_core.errors import Conflict, NotFound, TaskflowError, Unavailable
from taskflow_core.kube.client import MERGE_PATCH, Requests, tasks_path
from taskflow_core.store.operations import OperationRow
from taskflow_core.store.repository import Filter
from taskflow_core.store.rows import TaskRow
from taskflow_core.telemetry.logs import get_logger

BATCH = 50
PARALLEL = 8
BATCH_SECONDS = 0.5
"""A batch takes that long at least: at most 100 changes a second."""
LOOK_SECONDS = 2.0
MAX_PROBLEMS = 20
VERBS: Mapping[str, str] = {"cancel": "patch", "retry": "create"}
"""What the caller has to be allowed to do with Tasks."""
_log = get_logger(__name__)


class Operations(Protocol):
    """The rows, and the Tasks of the history. All raise Unavailable."""

    async def take(self, holder: str) -> OperationRow | None:
        """See `operations.take`."""

    async def save(self, row: OperationRow, holder: str, *, keep: bool = True) -> bool:
        """See `operations.save`."""

    async def list_tasks(
        self, namespace: str, wanted: Filter, *, after: tuple[datetime, str] | None, limit: int
    ) -> list[TaskRow]:
        """A page, newest first."""


@dataclass(frozen=True)
class Refusal:
    """A Task that was not changed."""

    task: TaskRow
    error: TaskflowError | ProblemError | ValidationError


class Runner:
    """Works on operations one after the other, in batches, each as the caller is authorised at that moment.

    Args:
        rows: the operations and the history.
        kube: for the changes.
        gate: for the caller's rights.
        stands: whether the key or account still stands by which the caller came; see `Identity.stands`.
        sleep: for tests.
    """

    def __init__(
        self,
        rows: Operations,
        kube: Requests,
        gate: Gate,
        stands: Callable[[Caller], Awaitable[bool]],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._rows = rows
        self._kube = kube
        self._gate = gate
        self._stands = stands
        self._sleep = sleep
        self._holder = uuid.uuid4().hex

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            try:
                row = await self._rows.take(self._holder)
                if row is not None:
                    await self.work(row)
                    continue
            except Unavailable as error:
                # Its lease runs out, and somebody goes on where it was.
                _log.warning("operation_postponed", cause=str(error))
            except Exception:  # noqa: BLE001 - one operation at fault must not stop the others
                _log.exception("operation_failed")
            await self._sleep(LOOK_SECONDS)

    async def work(self, row: OperationRow) -> None:
        """From where it is to its end, or until it is deleted or another process has it.

        Raises:
            Unavailable: something that it needs does not answer; nothing of a batch that was begun is counted.
        """
        caller = read_caller(row.caller)
        while row.finished_at is None:
            if words := await self._objection(caller, row):
                row = replace(row, state="Failed", message=words, finished_at=datetime.now(UTC))
            else:
                row = await self._batch(row)
            if not await self._rows.save(row, self._holder, keep=row.finished_at is None):
                _log.info("operation_left", operation=row.id)
                return
            if row.finished_at is None:
                await self._sleep(BATCH_SECONDS)
        _log.info(
            "audit", user=caller.username, verb=f"{row.verb} many", namespace=row.namespace, operation=row.id,
            state=row.state, done=row.done, failed=row.failed,
        )  # fmt: skip

    async def _objection(self, caller: Caller, row: OperationRow) -> str:
        """Why it may not go on; empty: it may."""
        if not await self._stands(caller):
            proof = "API key" if caller.method is Method.API_KEY else "account"
            return f"the {proof} of {caller.username} that it began with has expired or was revoked"
        if not await self._gate.allows(caller, VERBS[row.verb], row.namespace):
            return f"{caller.username} may not {VERBS[row.verb]} tasks.{naming.GROUP} any longer"
        return ""

    async def _batch(self, row: OperationRow) -> OperationRow:
        after = None if row.after_created_at is None else (row.after_created_at, row.after_uid or "")
        tasks = await self._rows.list_tasks(row.namespace, wanted(row), after=after, limit=BATCH)
        refusals = await self._change(row, tasks)
        told = [
            {"name": each.task.name, "uid": each.task.uid, "problem": _problem(row, each)}
            for each in refusals[: MAX_PROBLEMS - len(row.problems)]
        ]
        last = tasks[-1] if tasks else None
        ended = len(tasks) < BATCH
        return replace(
            row,
            matched=row.matched + len(tasks),
            done=row.done + len(tasks) - len(refusals),
            failed=row.failed + len(refusals),
            problems=row.problems + told,
            after_created_at=last.created_at if last else row.after_created_at,
            after_uid=last.uid if last else row.after_uid,
            state="Done" if ended else row.state,
            finished_at=datetime.now(UTC) if ended else None,
        )

    async def _change(self, row: OperationRow, tasks: Sequence[TaskRow]) -> list[Refusal]:
        room = asyncio.Semaphore(PARALLEL)

        async def one(task: TaskRow) -> Refusal | None:
            async with room:
                try:
                    await (self._cancel(task) if row.verb == "cancel" else self._retry(row, task))
                except Unavailable:
                    raise
                except TaskflowError as error:
                    return Refusal(task, error)
                return None

        found = await asyncio.gather(*(one(task) for task in tasks), return_exceptions=True)
        for each in found:
            if isinstance(each, BaseException):
                raise each
        return [each for each in found if isinstance(each, Refusal)]

    async def _cancel(self, task: TaskRow) -> None:
        # With its uid: another Task may have the name by now.
        patch = {"metadata": {"uid": task.uid}, "spec": {"cancel": True}}
        path = tasks_path(task.namespace, task.name)
        try:
            await self._kube.request(
                "PATCH", path, patch, content_type=MERGE_PATCH, params={"fieldManager": FIELD_MANAGER}
            )
        except NotFound:
            # It was deleted, so it does not run either.
            return

    async def _retry(self, row: OperationRow, task: TaskRow) -> None:
        wanted_task = again(task, name=_name(row, task))
        params = {"fieldManager": FIELD_MANAGER, "fieldValidation": "Strict"}
        try:
            await self._kube.request("POST", tasks_path(task.namespace), wanted_task, params=params)
        except Conflict:
            # Its name follows from this operation and the old one: it was made before the last process ended.
            return


def _name(row: OperationRow, task: TaskRow) -> str:
    digest = hashlib.sha256(f"{row.id} {task.uid}".encode()).hexdigest()[:10]
    return f"{task.name[:MAX_PREFIX].rstrip('.-')}-{digest}"


def _problem(row: OperationRow, refusal: Refusal) -> dict[str, Any]:
    scope = {"path": f"/v1/namespaces/{row.namespace}/tasks/{refusal.task.name}"}
    return problem_of(scope, refusal.error).model_dump(mode="json", by_alias=True)
