"""The ports of the API: protocols of the systems that its routes use. The adapters are in `wiring` and `history`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from datetime import datetime
from typing import Any, Protocol

from taskflow_core.blobs.multipart import MultipartUploads
from taskflow_core.blobs.store import ObjectInfo
from taskflow_core.domain.items import ItemRow, ItemState
from taskflow_core.kube.client import Requests
from taskflow_core.ledger.queue_view import QueuePosition
from taskflow_core.store.operations import OperationRow
from taskflow_core.store.repository import Filter
from taskflow_core.store.rows import AttemptRow, TaskRow, TimelineRow
from taskflow_core.store.schedules import ListedRun, RunKey, RunOutcome, RunRow

FIELD_MANAGER = "taskflow-api"
"""The field manager of all changes that the API makes to resources."""


class Kube(Requests, Protocol):
    """The API server: requests and watches."""

    def watch(self, path: str, version: str, field_selector: str = "") -> AsyncIterator[Sequence[dict[str, Any]]]:
        """Batches of changes after that version; see `KubeClient.watch`."""


class TaskHistory(Protocol):
    """The Tasks in PostgreSQL. All methods raise Unavailable."""

    async def list_tasks(
        self, namespace: str, wanted: Filter, *, after: tuple[datetime, str] | None, limit: int
    ) -> list[TaskRow]:
        """A page of Tasks, newest first."""


class OperationStore(Protocol):
    """The operations in PostgreSQL. All methods raise Unavailable."""

    async def start_operation(self, row: OperationRow) -> bool:
        """See `operations.start`."""

    async def get_operation(self, namespace: str, id_: str) -> OperationRow | None:
        """See `operations.get`."""

    async def list_operations(
        self, namespace: str, *, after: tuple[datetime, str] | None, limit: int
    ) -> list[OperationRow]:
        """See `operations.page`."""

    async def remove_operation(self, namespace: str, id_: str) -> bool:
        """See `operations.remove`."""

    async def lease_operation(self, holder: str) -> OperationRow | None:
        """See `operations.take`."""

    async def save_operation(self, row: OperationRow, holder: str, *, keep: bool = True) -> bool:
        """See `operations.save`."""


class RunStore(Protocol):
    """Runs of schedules in PostgreSQL. All methods raise Unavailable."""

    async def list_schedule_runs(
        self,
        namespace: str,
        schedule: str,
        *,
        outcomes: Collection[RunOutcome],
        backfill: str | None,
        after: RunKey | None,
        limit: int,
    ) -> list[ListedRun]:
        """See `schedules.list_runs`."""

    async def knows_schedule(self, namespace: str, name: str) -> bool:
        """See `schedules.known`."""

    async def record_schedule_run(self, run: RunRow) -> None:
        """See `schedules.record_runs`."""


class History(TaskHistory, OperationStore, RunStore, Protocol):
    """Everything that the API keeps in or reads from the history database. All methods raise Unavailable."""

    async def get_task(self, namespace: str, name: str) -> TaskRow | None:
        """The newest Task of that name."""

    async def get_runs(self, uid: str) -> tuple[list[AttemptRow], list[TimelineRow]]:
        """Attempts and timeline of a Task."""

    async def list_items(self, uid: str, *, state: ItemState | None, after: int, limit: int) -> list[ItemRow]:
        """Finished items of an array, by index."""

    async def latest_starts(self, namespace: str, queue: str, *, since: datetime, limit: int) -> list[datetime]:
        """The latest start times of Tasks of a queue, newest first."""

    async def check(self) -> None:
        """Raise Unavailable unless the database answers."""


class Queues(Protocol):
    """The broker's queues, read only for display."""

    async def position(self, namespace: str, queue: str, priority: int, uid: str, attempt: int) -> QueuePosition | None:
        """See `QueueView.position`."""


class Objects(Protocol):
    """The object store. All methods block."""

    def presigned_get(self, key: str, *, seconds: int, filename: str, content_type: str) -> str:
        """A presigned URL for a download, which is saved and never shown."""

    def presigned_put(self, key: str, *, seconds: int) -> str:
        """A presigned URL for an upload."""

    def list(self, prefix: str, *, start_after: str = "", limit: int = 1000) -> list[ObjectInfo]:
        """See `ObjectStore.list`."""

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """See `ObjectStore.get_range`."""

    def head(self, key: str) -> ObjectInfo:
        """See `ObjectStore.head`."""

    def delete(self, key: str) -> None:
        """See `ObjectStore.delete`."""

    def multipart(self) -> MultipartUploads:
        """Multipart uploads."""

    def links_can_copy(self) -> bool:
        """See `ObjectStore.links_can_copy`."""

    def check(self) -> None:
        """Raise Unavailable unless the store answers."""
