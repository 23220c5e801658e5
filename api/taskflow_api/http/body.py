"""The base model of request bodies, and the field types that several features use."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    StringConstraints,
)
from pydantic.alias_generators import to_camel

from taskflow_api.http.names import LABEL, MAX_LABEL_CHARS

_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)")


def _relative(key: str) -> str:
    if key.startswith("/") or any(part in ("", ".", "..") for part in key.split("/")):
        raise ValueError("key is relative to the namespace's prefix and has no empty, '.' or '..' part")
    return key


def _rfc3339(value: object) -> object:
    # Pydantic also accepts numbers. JSON can carry a time only as a string, which a strict model would refuse.
    if isinstance(value, datetime) or (isinstance(value, str) and _RFC3339.fullmatch(value)):
        return value
    raise ValueError("expected an RFC 3339 time, such as 2026-01-31T12:00:00Z")


Instant = Annotated[AwareDatetime, Field(strict=False), BeforeValidator(_rfc3339)]
ObjectKey = Annotated[
    str, StringConstraints(min_length=1, max_length=512, pattern=r"^[^\x00-\x1f\x7f]+$"), AfterValidator(_relative)
]
MediaType = Annotated[
    str,
    StringConstraints(
        max_length=127,
        pattern=r"^[A-Za-z0-9!#$&^_.+-]+/[A-Za-z0-9!#$&^_.+-]+(; ?[A-Za-z0-9-]+=[A-Za-z0-9._-]+)?$",
    ),
]
WebhookName = Annotated[str, StringConstraints(min_length=1, max_length=MAX_LABEL_CHARS, pattern=f"^{LABEL}$")]


class Body(BaseModel):
    """JSON from a caller: camelCase, exact types, no unknown fields."""

    model_config = ConfigDict(frozen=True, alias_generator=to_camel, extra="forbid", strict=True)


def examples(*bodies: dict[str, JsonValue]) -> ConfigDict:
    """Examples of a body for the OpenAPI document. A test sends each of them."""
    return ConfigDict(json_schema_extra={"examples": list(bodies)})
