"""Rules for presigned links to objects: how long they are valid, and which keys clients may not write."""

from __future__ import annotations

import asyncio
import re

from taskflow_api.http.problems import FieldError, ProblemError
from taskflow_api.ports import Objects
from taskflow_core.errors import TaskflowError
from taskflow_core.telemetry.logs import get_logger

LINK_SECONDS = 900
_UID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_log = get_logger(__name__)


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


async def warn_of_copies(objects: Objects) -> None:
    """Log an error if links to upload can be turned into copies of other namespaces' objects: the login can copy."""
    try:
        unsafe = await asyncio.to_thread(objects.links_can_copy)
    except TaskflowError as error:
        _log.warning("links_not_checked", error=str(error))
        return
    if unsafe:
        _log.error(
            "links_can_copy",
            remedy="give the API an S3 user with the policy of `python -m taskflow_core.blobs.policy --api BUCKET`",
        )
