"""Page cursors: a position in a list, bound to the namespace and filter it was made for.

The digest is against mistakes (a cut or edited cursor, one of another list), not against malice: a position gives away
nothing that its holder may not list anyway. So there is no key, and every replica reads every cursor.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_CHARS = 512


class BadCursor(ValueError):  # noqa: N818 - named for the thing
    """Not a cursor of this list."""


def encode(after: tuple[datetime, str], scope: Sequence[str | None]) -> str:
    """A cursor that continues after (created_at, uid) in the list that `scope` describes."""
    created, uid = after
    position = [(created - _EPOCH) // timedelta(microseconds=1), uid]
    text = json.dumps([*position, _digest(position, scope)], separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


def decode(cursor: str, scope: Sequence[str | None]) -> tuple[datetime, str]:
    """The position that `encode` was given.

    Raises:
        BadCursor: it was changed, or made for another list.
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
        raise BadCursor("the cursor is not one of this list; start again without it") from error


def _digest(position: Sequence[object], scope: Sequence[str | None]) -> str:
    return hashlib.sha256(json.dumps([position, list(scope)]).encode()).hexdigest()[:16]
