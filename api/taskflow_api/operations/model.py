"""Request and response bodies of operations, and their conversion from and to database rows."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, field_validator, model_validator

from taskflow_api.http.body import Body, Instant, examples
from taskflow_api.http.kubernetes_auth import Caller, Method
from taskflow_api.http.names import HANDLER, LABEL
from taskflow_api.http.problems import Problem
from taskflow_core.domain import selectors
from taskflow_core.domain.phases import Phase
from taskflow_core.domain.resource import Model
from taskflow_core.store.operations import OperationRow
from taskflow_core.store.repository import Filter

Verb = Literal["cancel", "retry"]
UNFINISHED = tuple(phase for phase in Phase if not phase.terminal)
FINISHED = tuple(phase for phase in Phase if phase.terminal)
_PHASES: dict[str, tuple[Phase, ...]] = {"cancel": UNFINISHED, "retry": FINISHED}
_DEFAULT: dict[str, tuple[Phase, ...]] = {"cancel": UNFINISHED, "retry": (Phase.FAILED,)}


class FilterBody(Body):
    """Selects among the Tasks that exist when the operation starts, with the filters of a list."""

    phase: Annotated[
        Literal["Pending", "Suspended", "Queued", "Running", "Succeeded", "Failed", "Cancelled"] | None,
        Field(
            description="To cancel: an unfinished phase, by default all. To retry: a finished phase, by default Failed."
        ),
    ] = None
    queue: Annotated[str | None, StringConstraints(min_length=1, max_length=63, pattern=f"^{LABEL}$")] = None
    handler: Annotated[str | None, StringConstraints(min_length=1, max_length=253, pattern=HANDLER)] = None
    label_selector: Annotated[str | None, StringConstraints(min_length=1, max_length=selectors.MAX_CHARS)] = None
    created_after: Instant | None = None
    created_before: Instant | None = None

    @field_validator("label_selector")
    @classmethod
    def _selector(cls, value: str | None) -> str | None:
        if value is not None:
            selectors.parse(value)
        return value


class OperationBody(Body):
    """The Tasks to cancel or retry."""

    model_config = examples({"filter": {"queue": "reports", "labelSelector": "team=a"}})

    filter: FilterBody
    all: Annotated[bool, Field(description="Must be true if the filter is empty.")] = False

    @model_validator(mode="after")
    def _not_all_by_accident(self) -> OperationBody:
        if not self.all and not self.filter.model_dump(exclude_none=True):
            raise ValueError("expected a filter, or all: true to select every Task of the namespace")
        return self


class TaskProblem(Model):
    """Why a Task was not changed."""

    name: str
    uid: str
    problem: Problem


class Operation(Model):
    """An operation on many Tasks."""

    id: str
    namespace: str
    verb: Verb
    filter: dict[str, Any]
    created_by: str
    """The identity whose permissions each change needs."""
    state: Literal["Running", "Done", "Failed"]
    """Failed: the operation stopped early, and `message` says why. `failed` counts Tasks that could not be changed."""
    message: str
    matched: int
    """Tasks handled so far."""
    done: int
    failed: int
    problems: list[TaskProblem]
    """The first 20."""
    created_at: datetime
    finished_at: datetime | None


class OperationPage(Model):
    """A page of the operations of a namespace, newest first."""

    items: list[Operation]
    next_cursor: str | None


def phases(verb: str, wanted: str | None) -> tuple[Phase, ...]:
    """The phases of the Tasks that an operation selects.

    Raises:
        ValueError: Tasks in that phase cannot be cancelled or retried.
    """
    if wanted is None:
        return _DEFAULT[verb]
    phase = Phase(wanted)
    if phase not in _PHASES[verb]:
        raise ValueError(f"expected one of {', '.join(_PHASES[verb])} to {verb}, found {phase}")
    return (phase,)


def task_filter(row: OperationRow) -> Filter:
    """The Tasks that an operation selects. It excludes Tasks that were created after the operation started."""
    stored = row.filter
    before = [row.created_at]
    if stored.get("createdBefore"):
        before.append(datetime.fromisoformat(stored["createdBefore"]))
    return Filter(
        phases=phases(row.verb, stored.get("phase")),
        queue=stored.get("queue"),
        handler=stored.get("handler"),
        labels=selectors.parse(stored.get("labelSelector") or ""),
        created_after=datetime.fromisoformat(stored["createdAfter"]) if stored.get("createdAfter") else None,
        created_before=min(before),
    )


def view(row: OperationRow) -> Operation:
    """The response body of an operation."""
    values = {name: getattr(row, name) for name in Operation.model_fields if hasattr(row, name)}
    return Operation.model_validate(values | {"created_by": row.caller["username"]})


def stored_caller(caller: Caller) -> dict[str, Any]:
    """The caller as JSON, to store it with the operation."""
    return {
        "username": caller.username,
        "uid": caller.uid,
        "groups": list(caller.groups),
        "extra": {name: list(values) for name, values in caller.extra},
        "method": caller.method.value,
        "subject": caller.subject,
    }


def read_caller(stored: dict[str, Any]) -> Caller:
    """The caller from its stored JSON."""
    extra = tuple((name, tuple(values)) for name, values in stored["extra"].items())
    # Rows of older versions have no method.
    method = Method(stored.get("method", Method.KUBERNETES))
    return Caller(stored["username"], stored["uid"], tuple(stored["groups"]), extra, method, stored.get("subject", ""))
