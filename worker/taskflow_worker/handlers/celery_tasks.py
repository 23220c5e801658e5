"""The tasks of a Celery application as handlers, without changes to its code.

Celery's own tracer runs a task, so bound tasks, `self.request`, hooks (`on_failure`, `after_return`) and signals work
as in Celery. Methods that use the application's broker or result backend are replaced: `retry` ends the attempt and
leaves the retry to TaskFlow, `update_state` becomes progress. `raise Again` works as in any other handler.
"""

from __future__ import annotations

import importlib
import json
import socket
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import wraps
from operator import attrgetter
from typing import Any

from celery import Celery, states
from celery._state import set_default_app
from celery.app.trace import build_tracer
from celery.app.utils import find_app
from celery.exceptions import Retry, SoftTimeLimitExceeded

from taskflow_core.domain.phases import Reason
from taskflow_core.errors import Invalid
from taskflow_core.telemetry.logs import get_logger
from taskflow_worker.sdk.context import Context
from taskflow_worker.sdk.failures import AttemptFailed, trimmed_trace, type_name
from taskflow_worker.sdk.forks import same_process
from taskflow_worker.sdk.registry import Registry
from taskflow_worker.sdk.runnable import ItemCall
from taskflow_worker.sdk.stop import Stop

log = get_logger(__name__)
_CELERY_TASKS = "celery."
"""Prefix of the tasks that every Celery application has."""


def adopt(name: str, registry: Registry) -> None:
    """Register the tasks of an application under their names.

    Args:
        name: `module:attribute`, or a module that has an application, as in `celery --app`.
        registry: where to register the tasks.

    Raises:
        Invalid: the application cannot be imported, is not a Celery application, or has no tasks.
    """
    module, _, attribute = name.partition(":")
    try:
        app = attrgetter(attribute)(importlib.import_module(module)) if attribute else find_app(name)
    except Exception as error:
        raise Invalid(
            f"Celery application {name!r} cannot be imported: {type(error).__name__}: {error}; "
            "expected module:attribute"
        ) from error
    if not isinstance(app, Celery):
        raise Invalid(f"{name!r} is a {type_name(app)}; expected a Celery application")
    try:
        app.loader.import_default_modules()
        app.finalize()
    except Exception as error:
        raise Invalid(f"tasks of {name!r} cannot be imported: {type(error).__name__}: {error}") from error
    tasks = [task for task_name, task in app.tasks.items() if not task_name.startswith(_CELERY_TASKS)]
    if not tasks:
        raise Invalid(f"Celery application {name!r} has no tasks; name them in its `include` or `imports`")
    register(tasks, registry)
    log.info("app_adopted", app=name, tasks=sorted(task.name for task in tasks))


def register(tasks: Iterable[Any], registry: Registry) -> None:
    """Register Celery tasks. This replaces their `retry` and `update_state`.

    Raises:
        Invalid: another handler has the name of a task.
    """
    for task in tasks:
        registry.register(CeleryHandler(task.name, task))


@dataclass(eq=False)
class _Attempt:
    """One run of a task, and what the task asked for."""

    context: Context
    retry: Retry | None = None
    retries_exhausted: bool = False


@dataclass
class CeleryHandler:
    """A Celery task as a handler."""

    name: str
    task: Any
    timeout_error: type[BaseException] = SoftTimeLimitExceeded
    batch: bool = False
    _of_context: ContextVar[_Attempt] = field(default_factory=lambda: ContextVar("attempt"), compare=False, repr=False)
    _running: list[_Attempt] = field(default_factory=list, compare=False, repr=False)

    def __post_init__(self) -> None:
        # On the instance, so that `self.retry` and Celery's autoretry find them. The result backend must stay unused.
        self.task.retry = self._retry
        self.task.update_state = self._update_state
        self.task.store_eager_result = False
        self.task.store_errors_even_if_ignored = False
        # Inside of Celery's tracer, whose hooks and signals a forked process must not run either.
        self.task.run = _in_same_process(self.task.run)

    @property
    def location(self) -> str:
        """The module that defines the task."""
        return f"Celery task of {self.task.__module__}"

    def bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Mapping[str, Any]:
        """Check number and names of the arguments, as `delay` does, unless the task is declared with `typing=False`."""
        if self.task.typing:
            try:
                self.task.__header__(*args, **kwargs)
            except TypeError as error:
                raise AttemptFailed(
                    Reason.INVALID_ARGUMENTS, f"{self.name} was given other arguments: {error}"
                ) from error
        return {"args": list(args), "kwargs": dict(kwargs)}

    def call(self, values: Mapping[str, Any], context: Context, stop: Stop) -> Any:
        """Run the task once, as a Celery worker does.

        Raises:
            AttemptFailed: the task was rejected, or asked for a retry without an error.
            BaseException: what the task raised.
        """
        return self._traced(self._tracer(), values, context, stop)

    def _tracer(self) -> Any:
        return build_tracer(self.name, self.task, app=self.task.app, eager=True, propagate=False)

    def _traced(self, tracer: Any, values: Mapping[str, Any], context: Context, stop: Stop) -> Any:
        attempt = _Attempt(context)
        self._running.append(attempt)
        before = self._of_context.set(attempt)
        # Celery's pool makes the worker's application the current one: `delay` in a shared task would use our broker.
        self.task.app.set_current()
        set_default_app(self.task.app)
        request = {
            "id": context.uid,
            "task": self.name,
            "root_id": context.uid,
            "correlation_id": context.uid,
            "retries": context.attempt - context.handbacks - 1,
            "is_eager": False,
            "hostname": socket.gethostname(),
            "delivery_info": {},
        }
        try:
            with stop.interrupts(self.timeout_error):
                traced = tracer(context.uid, values["args"], values["kwargs"], request)
        finally:
            self._of_context.reset(before)
            self._running.remove(attempt)
        if traced.info is None and attempt.retry is None:
            return traced.retval
        state = traced.info.state if traced.info else states.RETRY
        if state == states.IGNORED:
            return None
        raise _error_of(attempt, state, traced.info.retval if traced.info else None)

    def for_items(self, args: Sequence[Any], kwargs: Mapping[str, Any], stop: Stop) -> ItemCall:
        """See `Runnable`. Each item is one call of the task."""
        tracer = self._tracer()

        def call(item: Any, context: Callable[[], Context]) -> Any:
            return self._traced(tracer, self.bind([*args, item], kwargs), context(), stop)

        return call

    def _retry(
        self,
        args: Any = None,  # noqa: ARG002 - Celery's signature
        kwargs: Any = None,  # noqa: ARG002
        exc: Any = None,
        throw: bool = True,
        eta: Any = None,
        countdown: Any = None,
        max_retries: int | None = None,
        **options: Any,  # noqa: ARG002
    ) -> Retry:
        """Replaces `Task.retry`: raises `Retry`, or the error itself when `max_retries` is exhausted."""
        attempt = self._current()
        cause = exc if exc is not None else sys.exc_info()[1]
        limit = self.task.max_retries if max_retries is None else max_retries
        if limit is not None and attempt.context.attempt - attempt.context.handbacks > limit:
            attempt.retries_exhausted = True
            raise cause or self.task.MaxRetriesExceededError(f"{self.name} asked for more than {limit} retries")
        attempt.retry = Retry(exc=cause, when=eta or countdown)
        if throw:
            raise attempt.retry
        return attempt.retry

    def _update_state(self, task_id: str | None = None, state: str | None = None, meta: Any = None, **_: Any) -> None:
        """Replaces `Task.update_state`: `current` and `total` of `meta` become progress, the rest its message."""
        context = self._current().context
        if task_id is not None and task_id != context.uid:
            log.warning("state_of_another_task_ignored", task=self.name)
            return
        fields = dict(meta) if isinstance(meta, Mapping) else {}
        done, total = fields.pop("current", None), fields.pop("total", None)
        parts = [state or ""]
        if fields or (meta and done is None):
            parts.append(json.dumps(fields or meta, default=str))
        context.progress(_whole_number(done) or 0, _whole_number(total), " ".join(part for part in parts if part))

    def _current(self) -> _Attempt:
        """The run of this context. In a thread that the task started it is the only run, if there is only one."""
        found = self._of_context.get(None)
        running = list(self._running)
        if found is None and len(running) != 1:
            raise RuntimeError(f"{self.name} is called outside a TaskFlow attempt")
        return found or running[0]


def _in_same_process(run: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(run)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        with same_process():
            return run(*args, **kwargs)

    return guarded


def _whole_number(number: Any) -> int | None:
    return max(int(number), 0) if isinstance(number, (int, float)) else None


def _error_of(attempt: _Attempt, state: str, error: Any) -> BaseException:
    """The error to raise for a task that did not succeed."""
    if state == states.REJECTED:
        reason = Reason.HANDLER_ERROR if error.requeue else Reason.NOT_RETRYABLE
        return AttemptFailed(reason, f"the task was rejected: {error.reason}", type_name(error), error=error)
    if state == states.RETRY:
        asked = error if attempt.retry is None else attempt.retry
        if isinstance(asked.exc, Exception):
            return asked.exc
        return AttemptFailed(Reason.HANDLER_ERROR, "the task asked for a retry", type_name(asked), error=asked)
    if attempt.retries_exhausted:
        message = f"{error} (max_retries is used up)"
        return AttemptFailed(Reason.NOT_RETRYABLE, message, type_name(error), trimmed_trace(error))
    raised: BaseException = error
    return raised
