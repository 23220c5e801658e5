"""What an operation is: its bodies, and its identity in rows."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, field_validator, model_validator

from taskflow_api.access import LABEL
from taskflow_api.auth import Caller, Method
from taskflow_api.problems import Problem
from taskflow_api.tasks.schemas import Body, Instant, examples
from taskflow_core.domain import selectors
from taskflow_core.domain.phases import Phase
from taskflow_core.domain.resource import Model
from taskflow_core.store.operations import OperationRow
from taskflow_core.store.repository import Filter

Verb = Literal["cancel", "retry"]
OPEN = tuple(phase for phase in Phase if not phase.terminal)
ENDED = tuple(phase for phase in Phase if phase.terminal)
_PHASES: dict[str, tuple[Phase, ...]] = {"cancel": OPEN, "retry": ENDED}
_DEFAULT: dict[str, tuple[Phase, ...]] = {"cancel": OPEN, "retry": (Phase.FAILED,)}


class FilterBody(Body):
    """Which Tasks, of those that exist when the operation begins; as the filters of a list."""

    phase: Annotated[
        Literal["Pending", "Suspended", "Queued", "Running", "Succeeded", "Failed", "Cancelled"] | None,
        Field(
            description="To cancel: one that has not ended, or all of them. To retry: one that has, Failed without it."
        ),
    ] = None
    queue: Annotated[str | None, StringConstraints(min_length=1, max_length=63, pattern=f"^{LABEL}$")] = None
    handler: Annotated[
        str | None, StringConstraints(min_length=1, max_length=253, pattern=r"^[A-Za-z_][A-Za-z0-9_.:-]*$")
    ] = None
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
    """What to do with many Tasks."""

    model_config = examples({"filter": {"queue": "reports", "labelSelector": "team=a"}})

    filter: FilterBody
    all: Annotated[bool, Field(description="Has to be true for a filter that leaves nothing out.")] = False

    @model_validator(mode="after")
    def _meant(self) -> OperationBody:
        if not self.all and not self.filter.model_dump(exclude_none=True):
            raise ValueError("expected a filter, or all: true for every Task of the namespace")
        return self


class ProblemOf(Model):
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
    """As whom each change is made."""
    state: Literal["Running", "Done", "Failed"]
    """Failed: it was given up, and `message` says why. Single Tasks that could not be changed are counted by `failed`."""
    message: str
    matched: int
    """Tasks looked at so far."""
    done: int
    failed: int
    problems: list[ProblemOf]
    """The first 20."""
    created_at: datetime
    finished_at: datetime | None


class OperationPage(Model):
    """Operations of a namespace, newest first."""

    items: list[Operation]
    next_cursor: str | None


def phases(verb: str, wanted: str | None) -> tuple[Phase, ...]:
    """Phases that it is about.

    Raises:
        ValueError: nothing in that phase can be changed so.
    """
    if wanted is None:
        return _DEFAULT[verb]
    phase = Phase(wanted)
    if phase not in _PHASES[verb]:
        raise ValueError(f"expected one of {', '.join(_PHASES[verb])} to {verb}, found {phase}")
    return (phase,)


def wanted(row: OperationRow) -> Filter:
    """The filter of an operation, which ends with those that were there when it began."""
    said = row.filter
    before = [row.created_at]
    if said.get("createdBefore"):
        before.append(datetime.fromisoformat(said["createdBefore"]))
    return Filter(
        phases=phases(row.verb, said.get("phase")),
        queue=said.get("queue"),
        handler=said.get("handler"),
        labels=selectors.parse(said.get("labelSelector") or ""),
        created_after=datetime.fromisoformat(said["createdAfter"]) if said.get("createdAfter") else None,
        created_before=min(before),
    )


def view(row: OperationRow) -> Operation:
    """As it is told."""
    values = {name: getattr(row, name) for name in Operation.model_fields if hasattr(row, name)}
    return Operation.model_validate(values | {"created_by": row.caller["username"]})


def stored_caller(caller: Caller) -> dict[str, Any]:
    """An identity as JSON."""
    return {
        "username": caller.username,
        "uid": caller.uid,
        "groups": list(caller.groups),
        "extra": {name: list(values) for name, values in caller.extra},
        "method": caller.method.value,
        "subject": caller.subject,
    }


def read_caller(stored: dict[str, Any]) -> Caller:
    """That identity."""
    extra = tuple((name, tuple(values)) for name, values in stored["extra"].items())
    # Those that began under an older version do not say it.
    method = Method(stored.get("method", Method.KUBERNETES))
    return Caller(stored["username"], stored["uid"], tuple(stored["groups"]), extra, method, stored.get("subject", ""))
