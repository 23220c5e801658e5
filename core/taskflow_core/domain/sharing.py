"""Equal parts of many Tasks, kept once: of a hundred thousand Tasks that wait, most have one status and one retry
policy.
"""

from __future__ import annotations

import sys
from functools import lru_cache
from typing import TypeVar

from taskflow_core.domain.resource import Model
from taskflow_core.domain.task import Task, TaskSpec, TaskStatus

PARTS = 4096
"""Different parts that are cached for sharing. A part that fell out of the cache is kept twice."""
M = TypeVar("M", bound=Model)
_SPEC_STRINGS, _STATUS_STRINGS = ("handler", "queue"), ("reason", "message")


def shared(task: Task) -> Task:
    """Share equal sub-objects between Tasks to save memory: 1 KiB for each Task instead of 10.

    In place, so the Task has to be the caller's own, not yet seen by anybody else.
    """
    spec: TaskSpec = task.spec
    _intern(spec, _SPEC_STRINGS)
    _put(spec, "retry_policy", _one(spec.retry_policy))
    _same_fields(spec)
    _put(task, "namespace", sys.intern(task.namespace))
    return _share_status(task)


def with_status(task: Task, status: TaskStatus) -> Task:
    """A shared Task with another status, which is shared too."""
    return _share_status(task.model_copy(update={"status": status}))


def _share_status(task: Task) -> Task:
    status: TaskStatus = task.status
    _intern(status, _STATUS_STRINGS)
    _put(status, "conditions", tuple(_one(_same_fields(each)) for each in status.conditions))
    _same_fields(status)
    if status.start_time is None and status.result is None:
        # A Task that runs is unlike any other. Results are not shared: 1 and true are equal, and some cannot be
        # compared.
        _put(task, "status", _one(status))
    return _same_fields(task)


def _put(model: Model, name: str, value: object) -> None:
    # Bypasses the guard of a frozen model: the new value equals the old one.
    model.__dict__[name] = value


def _intern(model: Model, names: tuple[str, ...]) -> None:
    for name in names:
        _put(model, name, sys.intern(model.__dict__[name]))


@lru_cache(maxsize=PARTS)
def _remembered(part: Model) -> Model:
    return part


def _one(part: M) -> M:
    found = _remembered(part)
    assert isinstance(found, type(part))  # noqa: S101 - equal models are of one class
    return found


def _same_fields(model: M) -> M:
    """The set of given fields takes 700 bytes for each model, and most models have the same one."""
    object.__setattr__(model, "__pydantic_fields_set__", _field_set(frozenset(model.model_fields_set)))
    return model


@lru_cache(maxsize=1024)
def _field_set(names: frozenset[str]) -> set[str]:
    return set(names)
