"""An operator's controller of schedules, over an API server and a history in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, cast

from taskflow_core.domain.phases import Phase
from taskflow_core.domain.task import Task
from taskflow_core.errors import Conflict, Invalid, NotFound, TaskflowError, Unavailable
from taskflow_core.store.schedules import RunRow, ScheduleRow
from taskflow_operator.schedules.children import Children
from taskflow_operator.schedules.controller import ScheduleController, ScheduleServices
from taskflow_operator.schedules.creation import RunCreator
from taskflow_operator.schedules.known import KnownSchedules
from taskflow_operator.schedules.notices import ScheduleNotices
from taskflow_operator.schedules.observer import ScheduleObserver
from taskflow_operator.schedules.recorder import RunRecorder
from taskflow_operator.tasks.open_tasks import OpenTasks
from taskflow_operator.tasks.work_queue import WorkQueue
from tests.builders import NOW
from tests.unit.taskflow_operator.fakes import eventually
from tests.unit.taskflow_operator.schedules.objects import SCHEDULE_UID, schedule_object

FIRST, SECOND = "nightly.20260301t120100z", "nightly.20260301t120200z"


class Server:
    """Tasks and one schedule, as an API server keeps them. `refuse` answers by itself."""

    def __init__(self, schedule: dict[str, Any]) -> None:
        self.schedule = schedule
        self.tasks: dict[str, dict[str, Any]] = {}
        self.asked: list[str] = []
        self.refuse: Callable[[str, str], TaskflowError | None] = lambda _method, _name: None
        self.after: Callable[[str, str], TaskflowError | None] = lambda _method, _name: None
        """Likewise, once the request was followed: the answer is lost."""
        self.version = 1

    async def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        content_type: str = "application/json",
        params: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        await asyncio.sleep(0)
        name = body["metadata"]["name"] if method == "POST" else path.removesuffix("/status").rpartition("/")[2]
        self.asked.append(f"{method} {name}")
        if error := self.refuse(method, name):
            raise error
        answer = self._status(body) if path.endswith("/status") else self._task(method, name, body)
        if error := self.after(method, name):
            raise error
        return answer

    def _task(self, method: str, name: str, body: Any) -> dict[str, Any]:
        if method == "POST":
            if name in self.tasks:
                raise Conflict("it exists")
            meta = {**body["metadata"], "uid": f"uid-of-{name}", "namespace": "team-a"}
            meta |= {"creationTimestamp": "2026-03-01T12:00:00Z", "resourceVersion": "1"}
            self.tasks[name] = {**body, "metadata": meta}
        if name not in self.tasks:
            raise NotFound(name)
        if method == "PATCH":
            assert body[0]["value"] == self.tasks[name]["metadata"]["uid"]
            self.tasks[name]["spec"]["cancel"] = body[1]["value"]
        return self.tasks[name]

    def _status(self, patch: Any) -> dict[str, Any]:
        meta = self.schedule["metadata"]
        for test in patch[:-1]:
            if meta[test["path"].rpartition("/")[2]] != test["value"]:
                raise Invalid("the server rejected our request due to an error in our request")
        self.change(status=patch[-1]["value"])
        return self.schedule

    def change(self, **fields: Any) -> None:
        self.version += 1
        meta = {**self.schedule["metadata"], "resourceVersion": str(self.version)}
        self.schedule = {**self.schedule, "metadata": meta, **fields}

    def edit(self, **spec: Any) -> None:
        generation = self.schedule["metadata"]["generation"] + 1
        self.schedule["metadata"]["generation"] = generation
        self.change(spec={**self.schedule["spec"], **spec})

    @property
    def status(self) -> dict[str, Any]:
        return dict(self.schedule["status"])

    def condition(self, kind: str) -> tuple[str, str]:
        found = next((each for each in self.status.get("conditions", []) if each["type"] == kind), None)
        return ("", "") if found is None else (found["status"], found["reason"])


class Past:
    """The history."""

    def __init__(self) -> None:
        self.uids: dict[str, str] = {}
        self.asked: list[str] = []
        self.down = False
        self.rows: list[RunRow] = []

    def _answer(self) -> None:
        if self.down:
            raise Unavailable("PostgreSQL: down")

    async def ran(self, namespace: str, names: Collection[str]) -> dict[str, str]:
        assert namespace == "team-a"
        self.asked += names
        self._answer()
        return {name: self.uids[name] for name in names if name in self.uids}

    async def outcome(self, namespace: str, name: str) -> Phase | None:
        self._answer()
        return Phase.SUCCEEDED

    async def store_schedules(self, rows: Sequence[ScheduleRow]) -> None:
        self._answer()

    async def record_runs(self, runs: Sequence[RunRow]) -> None:
        self._answer()
        self.rows += runs

    async def schedule_deleted(self, uid: str) -> None:
        self._answer()


class Events:
    def __init__(self) -> None:
        self.reasons: list[str] = []

    def warn(self, about: object, reason: str, note: str, *, action: str) -> None:
        self.reasons.append(reason)


class Site:
    def __init__(self, **spec: Any) -> None:
        self.now = NOW
        self.skew = 0.0
        self.listed = True
        self.monotonic = 1000.0
        self.past, self.events = Past(), Events()
        self.server = Server(schedule_object(**spec))
        self.begin()

    def begin(self) -> None:
        """A process begins, and knows what it lists."""
        self.tasks, self.schedules = OpenTasks(), KnownSchedules()
        self.queue = WorkQueue(now=lambda: self.now, namespace_of=self.schedules.namespace_of)
        self.children = Children(self.tasks, self.schedules, expire=lambda _: None, changed=self.queue.add)
        self.tasks.added.append(self.children.added)
        services = ScheduleServices(
            kube=self.server,
            queue=self.queue,
            creator=RunCreator(self.server, self.past, now=lambda: self.now, clock=lambda: self.monotonic),
            recorder=RunRecorder(self.past),
            notices=ScheduleNotices(cast("Any", self.events)),
            turn=self._turn,
            listed=lambda: self.listed,
            clock_skew=lambda: self.skew,
            now=lambda: self.now,
            clock=lambda: self.monotonic,
        )
        self.controller = ScheduleController(self.schedules, self.children, services)
        self.observer = ScheduleObserver(
            self.schedules, cast("Any", None), changed=self.queue.add, gone=self.controller.gone
        )
        for body in self.server.tasks.values():
            task = Task.from_object(body)
            if task.finished:
                self.children.finished(task)
            else:
                self.tasks.add(task)
        self.watch()

    async def _turn(self) -> None:
        pass

    def watch(self) -> None:
        """The watch shows the schedule as it is."""
        self.observer.observe(self.server.schedule)

    def show(self, name: str) -> None:
        """The watch shows a Task."""
        self.tasks.add(Task.from_object(self.server.tasks[name]))

    def end(self, name: str, phase: Phase = Phase.SUCCEEDED) -> None:
        """A Task ends."""
        body = self.server.tasks[name]
        body["status"] = {"phase": phase.value, "completionTime": "2026-03-01T12:00:00Z", "observedGeneration": 1}
        uid = body["metadata"]["uid"]
        self.tasks.close(uid, 0.0)
        self.children.ended(Task.from_object(body))

    @asynccontextmanager
    async def runs(self) -> AsyncIterator[None]:
        job = asyncio.create_task(self.controller.run())
        try:
            yield
        finally:
            job.cancel()
            await asyncio.wait([job])

    async def at(self, when: datetime) -> None:
        """At that time, and when everything is done that was due."""
        self.now = when
        self.monotonic += 60
        self.queue.add(SCHEDULE_UID)
        await self.rest()

    async def rest(self) -> None:
        """Until everything is done that is due."""
        await eventually(lambda: not self.queue and not self.controller._busy)

    @property
    def names(self) -> list[str]:
        return list(self.server.tasks)
