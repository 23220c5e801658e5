"""ETags of live resources, and the version that an If-Match header asks for."""

from __future__ import annotations

import re
from typing import Annotated, Any

from fastapi import Header

from taskflow_api.http.problems import ProblemError

IfMatch = Annotated[str | None, Header(max_length=128, description="ETag of the resource as it was read.")]


def etag(body: dict[str, Any], history_events: int | None = None) -> str:
    """The ETag of a resource: its resourceVersion and, if the answer includes the history, the number of its events."""
    version = body["metadata"].get("resourceVersion", "")
    return f'"{version}"' if history_events is None else f'"{version}.{history_events}"'


def if_match_version(if_match: str | None) -> str | None:
    """The resourceVersion that an If-Match header asks for; None if any version will do.

    Raises:
        ProblemError: 412, the header is not an ETag of this API, so no resource matches it.
    """
    if if_match is None or if_match.strip() == "*":
        return None
    # The part after the dot counts history events, which a change does not depend on.
    version = if_match.strip().removeprefix("W/").strip('"').partition(".")[0]
    if not re.fullmatch(r"[0-9]{1,20}", version):
        raise ProblemError(412, "If-Match must be an ETag of an earlier answer; read the resource again")
    return version
