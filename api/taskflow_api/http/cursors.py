"""Page cursors: a position in a list, bound to the namespace and the filter of the list.

The digest detects mistakes (a truncated or edited cursor, or one of another list), not attacks: a position reveals only
what its holder may list anyway. So it needs no key, and every replica can read every cursor.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from taskflow_api.http.problems import ProblemError

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_CHARS = 512


class BadCursor(ValueError):  # noqa: N818 - named for the thing
    """The text is not a cursor of this list."""


def encode(after: tuple[datetime, str], scope: Sequence[str | None]) -> str:
    """A cursor for the entries after (created_at, id) in the list that `scope` identifies."""
    created, uid = after
    values = [(created - _EPOCH) // timedelta(microseconds=1), uid]
    text = json.dumps([*values, _digest(values, scope)], separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


def decode(cursor: str, scope: Sequence[str | None]) -> tuple[datetime, str]:
    """The position in a cursor, as it was given to `encode`.

    Raises:
        BadCursor: the cursor is damaged or belongs to another list.
    """
    try:
        if len(cursor) > _MAX_CHARS:
            raise BadCursor
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        micros, uid, digest = json.loads(raw)
        if digest != _digest([micros, uid], scope):
            raise BadCursor
        return _EPOCH + timedelta(microseconds=micros), uid
    except (ValueError, TypeError, binascii.Error, OverflowError, RecursionError) as error:
        raise BadCursor("the cursor does not belong to this list; start again without it") from error


def position(cursor: str | None, scope: Sequence[str | None]) -> tuple[datetime, str] | None:
    """The position in the cursor of a request; None if it has no cursor.

    Raises:
        ProblemError: 400, the cursor does not belong to this list.
    """
    try:
        return None if cursor is None else decode(cursor, scope)
    except BadCursor as error:
        raise ProblemError(400, str(error), code="bad-cursor") from error


def _digest(values: Sequence[object], scope: Sequence[str | None]) -> str:
    return hashlib.sha256(json.dumps([values, list(scope)]).encode()).hexdigest()[:16]
