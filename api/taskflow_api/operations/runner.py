"""Runs operations in batches. Any API process may lease one and continues where the previous holder stopped."""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Protocol

from pydantic import ValidationError

from taskflow_api.http.kubernetes_auth import Caller, KubernetesAuth, Method
from taskflow_api.http.problems import ProblemError, problem_of
from taskflow_api.operations.model import read_caller, task_filter
from taskflow_api.ports import FIELD_MANAGER, TaskHistory
from taskflow_api.tasks.retries import retry_source
from taskflow_core.domain import naming
from taskflow_core.domain.manifests import retry_manifest, retry_prefix
from taskflow_core.errors import Conflict, Invalid, NotFound, TaskflowError, Unavailable
from taskflow_core.kube.client import JSON_PATCH, Requests, failed_test, tasks_path
from taskflow_core.store.operations import OperationRow
from taskflow_core.store.rows import TaskRow
from taskflow_core.telemetry.logs import get_logger

BATCH = 50
MAX_CONCURRENT = 8
BATCH_SECONDS = 0.5
"""The pause after each batch, which limits the rate to 100 changes per second."""
TURN = 20
"""Batches after which other operations get their turn: one of a namespace with very many Tasks takes hours."""
POLL_SECONDS = 2.0
MAX_PROBLEMS = 20
VERBS: Mapping[str, str] = {"cancel": "patch", "retry": "create"}
"""The permission on Tasks that the caller needs, by verb."""
_log = get_logger(__name__)


class OperationRows(TaskHistory, Protocol):
    """The operations to run, and the Tasks that they select. All methods raise Unavailable."""

    async def lease_operation(self, holder: str) -> OperationRow | None:
        """See `operations.take`."""

    async def save_operation(self, row: OperationRow, holder: str, *, keep: bool = True) -> bool:
        """See `operations.save`."""


@dataclass(frozen=True)
class FailedChange:
    """A Task that was not changed."""

    task: TaskRow
    error: TaskflowError | ProblemError | ValidationError


class OperationRunner:
    """Runs operations one after another, and checks the caller's permission before each batch.

    Args:
        rows: The operations and the history.
        kube: Makes the changes.
        auth: Checks the caller's permission.
        is_valid: Whether the caller's API key or account is still valid; see `Identity.is_valid`.
        sleep: Replaced in tests.
    """

    def __init__(
        self,
        rows: OperationRows,
        kube: Requests,
        auth: KubernetesAuth,
        is_valid: Callable[[Caller], Awaitable[bool]],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._rows = rows
        self._kube = kube
        self._auth = auth
        self._is_valid = is_valid
        self._sleep = sleep
        self._holder = uuid.uuid4().hex

    async def run(self) -> None:
        """Run operations until cancelled."""
        while True:
            try:
                row = await self._rows.lease_operation(self._holder)
                if row is not None:
                    await self.work(row)
                    continue
            except Unavailable as error:
                # When the lease expires, a process continues the operation.
                _log.warning("operation_postponed", cause=str(error))
            except Exception:  # noqa: BLE001 - one broken operation must not stop the others
                _log.exception("operation_failed")
            await self._sleep(POLL_SECONDS)

    async def work(self, row: OperationRow) -> None:
        """Run one operation to its end, until its turn is over, or until it is deleted or leased by another process.

        Raises:
            Unavailable: a dependency does not answer. The unfinished batch is not counted.
        """
        caller = read_caller(row.caller)
        batches = 0
        while row.finished_at is None:
            batches += 1
            if refusal := await self._refusal(caller, row):
                row = replace(row, state="Failed", message=refusal, finished_at=datetime.now(UTC))
            else:
                row = await self._batch(row)
            keep = row.finished_at is None and batches < TURN
            if not await self._rows.save_operation(row, self._holder, keep=keep):
                _log.info("operation_lost", operation=row.id)
                return
            if row.finished_at is None:
                await self._sleep(BATCH_SECONDS)
                if not keep:
                    return
        _log.info(
            "audit",
            user=caller.username,
            verb=f"{row.verb} many",
            namespace=row.namespace,
            operation=row.id,
            state=row.state,
            done=row.done,
            failed=row.failed,
        )

    async def _refusal(self, caller: Caller, row: OperationRow) -> str:
        """Why the caller may not continue; empty if it may."""
        if not await self._is_valid(caller):
            credential = "API key" if caller.method is Method.API_KEY else "account"
            return f"the {credential} of {caller.username} that started the operation has expired or was revoked"
        if not await self._auth.allows(caller, VERBS[row.verb], row.namespace):
            return f"{caller.username} may not {VERBS[row.verb]} tasks.{naming.GROUP} any more"
        return ""

    async def _batch(self, row: OperationRow) -> OperationRow:
        after = None if row.after_created_at is None else (row.after_created_at, row.after_uid or "")
        tasks = await self._rows.list_tasks(row.namespace, task_filter(row), after=after, limit=BATCH)
        failures = await self._apply(row, tasks)
        problems = [
            {"name": each.task.name, "uid": each.task.uid, "problem": _problem(row, each)}
            for each in failures[: MAX_PROBLEMS - len(row.problems)]
        ]
        last = tasks[-1] if tasks else None
        ended = len(tasks) < BATCH
        return replace(
            row,
            matched=row.matched + len(tasks),
            done=row.done + len(tasks) - len(failures),
            failed=row.failed + len(failures),
            problems=row.problems + problems,
            after_created_at=last.created_at if last else row.after_created_at,
            after_uid=last.uid if last else row.after_uid,
            state="Done" if ended else row.state,
            finished_at=datetime.now(UTC) if ended else None,
        )

    async def _apply(self, row: OperationRow, tasks: Sequence[TaskRow]) -> list[FailedChange]:
        slots = asyncio.Semaphore(MAX_CONCURRENT)

        async def one(task: TaskRow) -> FailedChange | None:
            async with slots:
                try:
                    await self._change(row, task)
                except Unavailable:
                    raise
                except (TaskflowError, ProblemError, ValidationError) as error:
                    return FailedChange(task, error)
                except Exception as error:  # noqa: BLE001 - one broken row must not stop the others
                    _log.exception("operation_row_failed", operation=row.id, uid=task.uid)
                    return FailedChange(task, TaskflowError(type(error).__name__))
                return None

        found = await asyncio.gather(*(one(task) for task in tasks), return_exceptions=True)
        for each in found:
            if isinstance(each, BaseException):
                raise each
        return [each for each in found if isinstance(each, FailedChange)]

    async def _change(self, row: OperationRow, task: TaskRow) -> None:
        # The caller was authorised for the operation's namespace; nothing that a row says leads out of it.
        if task.namespace != row.namespace:
            raise Invalid(f"the history has Task {task.uid} in another namespace")
        await (self._cancel(row, task) if row.verb == "cancel" else self._retry(row, task))

    async def _cancel(self, row: OperationRow, task: TaskRow) -> None:
        # The uid is tested by the API server, because another Task may have the name by now.
        patch = [
            {"op": "test", "path": "/metadata/uid", "value": task.uid},
            {"op": "add", "path": "/spec/cancel", "value": True},
        ]
        path, params = tasks_path(row.namespace, task.name), {"fieldManager": FIELD_MANAGER}
        try:
            await self._kube.request("PATCH", path, patch, content_type=JSON_PATCH, params=params)
        except NotFound:
            # A deleted Task does not run either.
            return
        except Invalid as error:
            if failed_test(error):
                raise Conflict(f"Task {task.name} is another one than that of the history") from error
            raise

    async def _retry(self, row: OperationRow, task: TaskRow) -> None:
        source = await retry_source(self._kube, row.namespace, task)
        manifest = retry_manifest(source, name=_name(row, task))
        params = {"fieldManager": FIELD_MANAGER, "fieldValidation": "Strict"}
        try:
            await self._kube.request("POST", tasks_path(row.namespace), manifest, params=params)
        except Conflict:
            # The name is derived from the operation and the old Task, so the previous holder created this one.
            return


def _name(row: OperationRow, task: TaskRow) -> str:
    digest = hashlib.sha256(f"{row.id} {task.uid}".encode()).hexdigest()[:10]
    return retry_prefix(task.name) + digest


def _problem(row: OperationRow, failed: FailedChange) -> dict[str, Any]:
    scope = {"path": f"/v1/namespaces/{row.namespace}/tasks/{failed.task.name}"}
    return problem_of(scope, failed.error).model_dump(mode="json", by_alias=True)
