"""Rules for presigned links to objects: how long they are valid, and which keys clients may not write."""

from __future__ import annotations

import re

from taskflow_api.http.problems import FieldError, ProblemError

LINK_SECONDS = 900
_UID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


def refuse_outputs(key: str, pointer: str = "") -> None:
    """Refuse keys of Task outputs (NAMESPACE/UID/...): whoever can write there could replace a result.

    Raises:
        ProblemError: 422.
    """
    if _UID.fullmatch(key.partition("/")[0]):
        error = FieldError(
            pointer=pointer, detail="the first part must not be a uid: it is reserved for outputs of Tasks"
        )
        raise ProblemError(422, "the key is reserved for outputs of a Task", errors=[error])
