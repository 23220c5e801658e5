"""What all TaskFlow resources share: the base model, times, and conditions."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainSerializer, ValidationError
from pydantic.alias_generators import to_camel

M = TypeVar("M", bound=BaseModel)


def _as_utc(value: datetime) -> datetime:
    try:
        return value.astimezone(UTC)
    except OverflowError:
        # Pydantic lets through what is no ValueError, and nobody who reads a Task expects it.
        raise ValueError("in UTC it is outside the years 1 to 9999") from None


def rfc3339(value: datetime) -> str:
    """A time in UTC as Kubernetes writes it: whole seconds, and a `Z`."""
    # Not strftime: it writes the year 900 with three digits.
    return value.replace(tzinfo=None).isoformat(timespec="seconds") + "Z"


Time = Annotated[datetime, AfterValidator(_as_utc), PlainSerializer(rfc3339, when_used="json")]
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


def readable_fields(model: type[M], fields: Mapping[str, Any], required: Mapping[str, Any]) -> tuple[M, str]:
    """The model of those fields that can be read, and what is wrong with the others; empty if nothing is."""
    try:
        return model.model_validate(fields), ""
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False)
        told = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in found)
        bad = {each["loc"][0] for each in found}
        kept = {name: value for name, value in fields.items() if name not in bad}
        return model.model_validate({**required, **kept}), told
