"""Creates the Job of an attempt that runs in a pod of its own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Protocol

from taskflow_core.domain.attempts import AttemptKey
from taskflow_core.domain.message import Message
from taskflow_core.domain.task import Task
from taskflow_core.errors import Conflict, Forbidden, Invalid, NotFound, Unavailable
from taskflow_core.kube.client import Requests, resource_path
from taskflow_core.telemetry.logs import get_logger
from taskflow_operator.isolated.jobs import BATCH, RETRY_SECONDS, job
from taskflow_operator.runtime import dependency_health
from taskflow_operator.runtime.background import Background
from taskflow_operator.runtime.supervisor import ConsecutiveErrors
from taskflow_operator.tasks.messages import message_of
from taskflow_operator.tasks.ports import EnteredAttempt

log = get_logger(__name__)
MAX_CONCURRENT = 16
"""Jobs that are created at a time."""
WAITING_MESSAGE = "waits for its pod"
PodTemplate = Callable[[str, str], Mapping[str, Any]]
"""Pod template for a namespace and queue. Raises `Invalid`, whose message says why there is none now."""


class MessageStore(Protocol):
    """Where the message of an attempt is left for its pod. Raises `Unavailable`."""

    async def leave(self, message: Message) -> None:
        """Leave the message of an attempt that is in the ledger."""


class JobLauncher:
    """Starts attempts by a Job each, and knows why one does not start.

    The message is left in Redis before the Job is created. What is not done of that, because the operator dies or the
    API server is unavailable, is done later by the controller.

    Args:
        kube: the API server.
        messages: where messages are left.
        template: of pods.
        token_key: from which the token of each attempt is derived.
        changed: called with the uid of a Task whose problem changed.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        kube: Requests,
        messages: MessageStore,
        template: PodTemplate,
        *,
        token_key: str,
        changed: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._kube = kube
        self._messages = messages
        self._template = template
        self._token_key = token_key
        self._changed = changed
        self._clock = clock
        self._slots = asyncio.Semaphore(MAX_CONCURRENT)
        self._background = Background(ConsecutiveErrors("jobs"))
        self._launching: set[AttemptKey] = set()
        self._refused: dict[AttemptKey, float] = {}
        self._problems: dict[AttemptKey, str] = {}

    def waiting_message(self, task: Task) -> str:
        """Why the pod of the current attempt does not start, or that it has only begun to."""
        return self._problems.get(AttemptKey.current(task), WAITING_MESSAGE)

    async def start(self, attempts: Sequence[EnteredAttempt]) -> None:
        """Create the Jobs in the background. Harmless to repeat; what fails is done later by the controller."""
        for each in attempts:
            self._background.start(self.launch(each.task, message_of(each.task, self._token_key)), uid=each.task.uid)

    async def launch(self, task: Task, message: Message) -> None:
        """Create the Job of an attempt that is in the ledger."""
        attempt = AttemptKey.current(task)
        self._launching.add(attempt)
        try:
            async with self._slots:
                await self._create(task, message)
        except (Invalid, Forbidden, NotFound) as error:
            self._refused[attempt] = self._clock()
            log.warning("job_refused", uid=task.uid, attempt=task.status.attempt, error=str(error))
            self.report(attempt, str(error))
        except Unavailable as error:
            dependency_health.failed(error)
        finally:
            self._launching.discard(attempt)

    async def _create(self, task: Task, message: Message) -> None:
        wanted = job(task, self._template(task.namespace, task.spec.queue))
        await self._messages.leave(message)
        try:
            await self._kube.request("POST", resource_path(BATCH, "jobs", task.namespace), wanted)
        except Conflict:
            # It exists: this operator made it before, or one that died right after.
            return
        log.info("job_made", uid=task.uid, attempt=task.status.attempt, job=wanted["metadata"]["name"])

    def ready(self, task: Task) -> bool:
        """Whether to launch an attempt again whose Job is missing: there is a template, and it is not too soon."""
        attempt = AttemptKey.current(task)
        too_soon = self._clock() - self._refused.get(attempt, float("-inf")) < RETRY_SECONDS
        if too_soon or attempt in self._launching:
            return False
        try:
            self._template(task.namespace, task.spec.queue)
        except Invalid as error:
            # Asked here too, because it changes with what the user does with the pool.
            self.report(attempt, str(error))
            return False
        self.report(attempt, None)
        return True

    def report(self, attempt: AttemptKey, problem: str | None) -> None:
        """Record why an attempt does not start; None if there is no problem."""
        if self._problems.get(attempt) == problem:
            return
        if problem is None:
            del self._problems[attempt]
        else:
            self._problems[attempt] = problem
        self._changed(attempt.uid)

    def forget_except(self, attempts: Collection[AttemptKey]) -> None:
        """Forget all attempts but these."""
        self._refused = {attempt: when for attempt, when in self._refused.items() if attempt in attempts}
        self._problems = {attempt: why for attempt, why in self._problems.items() if attempt in attempts}
