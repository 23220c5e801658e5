"""Which way in a token is for. What it says of itself chooses who checks it, and is believed by nobody."""

from __future__ import annotations

import base64
import json
from collections.abc import Awaitable, Callable, Mapping

from taskflow_api.auth import Caller
from taskflow_api.identity.keytext import PREFIX
from taskflow_api.identity.signed import RefusedError
from taskflow_core.telemetry.logs import get_logger

MAX_LENGTH = 16 * 1024
Check = Callable[[str], Awaitable[Caller | None]]
"""The caller that a token proves, or None; raises Unavailable."""
_DOTS = 2
"""In a JWT."""
_log = get_logger(__name__)


class Tokens:
    """Every way in.

    Args:
        kubernetes: Checks what nobody else does.
        keys: Checks API keys.
        issuers: By the issuer of a token (claim `iss`), what checks it.
    """

    def __init__(self, kubernetes: Check, keys: Check, issuers: Mapping[str, Check]) -> None:
        self._kubernetes = kubernetes
        self._keys = keys
        self._issuers = dict(issuers)

    async def authenticate(self, token: str) -> Caller | None:
        """The caller that a bearer token proves; None when it proves none.

        Raises:
            Unavailable: what would check it does not answer.
        """
        caller, issuer, reason = None, "", "not valid"
        try:
            issuer = _issuer(token) if self._issuers else ""
            caller = await self._check(token, issuer)(token)
        except RefusedError as error:
            reason = str(error)
        if caller is None:
            _log.info("token_refused", issuer=issuer if issuer in self._issuers else "", reason=reason)
        return caller

    def _check(self, token: str, issuer: str) -> Check:
        if len(token) > MAX_LENGTH:
            raise RefusedError(f"longer than {MAX_LENGTH} characters")
        return self._keys if token.startswith(PREFIX) else self._issuers.get(issuer, self._kubernetes)


def _issuer(token: str) -> str:
    """What the token says of its origin; empty when it says nothing."""
    if token.count(".") != _DOTS or len(token) > MAX_LENGTH:
        return ""
    payload = token.split(".")[1]
    try:
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (ValueError, RecursionError):
        return ""
    issuer = claims.get("iss") if isinstance(claims, dict) else None
    return issuer if isinstance(issuer, str) else ""
