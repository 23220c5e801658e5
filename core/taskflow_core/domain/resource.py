"""What all TaskFlow resources share: the base model, times, and conditions."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainSerializer
from pydantic.alias_generators import to_camel


def _as_utc(value: datetime) -> datetime:
    try:
        return value.astimezone(UTC)
    except OverflowError:
        # Pydantic lets through what is no ValueError, and nobody who reads a Task expects it.
        raise ValueError("in UTC it is outside the years 1 to 9999") from None


def _rfc3339(value: datetime) -> str:
    # Not strftime: it writes the year 900 with three digits.
    return value.replace(tzinfo=None).isoformat(timespec="seconds") + "Z"


Time = Annotated[datetime, AfterValidator(_as_utc), PlainSerializer(_rfc3339, when_used="json")]
"""A time with a zone; whole seconds in JSON, as Kubernetes writes them."""


Count = Annotated[int, Field(ge=0, le=2**53)]
"""A number that every JSON reader and column takes."""
RunMs = Count
"""How long something ran, in milliseconds."""


class Model(BaseModel):
    """Frozen, camelCase on the wire, tolerant of fields that a newer version added."""

    model_config = ConfigDict(frozen=True, alias_generator=to_camel, populate_by_name=True, extra="ignore")


class Condition(Model):
    """One condition by the Kubernetes API conventions (KEP-1623)."""

    type: str
    status: str
    reason: str
    message: str = ""
    last_transition_time: Time
    observed_generation: int = 0
