"""Chooses the authenticator for a token from its unverified form. The authenticator then validates the token."""

from __future__ import annotations

import base64
import json
from collections.abc import Awaitable, Callable, Mapping

from taskflow_api.http.kubernetes_auth import Caller
from taskflow_api.identity.jwt_validation import InvalidTokenError
from taskflow_api.identity.key_format import PREFIX
from taskflow_core.telemetry.logs import get_logger

MAX_LENGTH = 16 * 1024
Authenticator = Callable[[str], Awaitable[Caller | None]]
"""Returns the caller behind a token, or None. May raise InvalidTokenError and Unavailable."""
_DOTS = 2
"""The number of dots in a JWT."""
_log = get_logger(__name__)


class Tokens:
    """All authenticators.

    Args:
        kubernetes: For all other tokens.
        keys: For API keys.
        issuers: For JWTs, by their issuer (`iss`).
    """

    def __init__(self, kubernetes: Authenticator, keys: Authenticator, issuers: Mapping[str, Authenticator]) -> None:
        self._kubernetes = kubernetes
        self._keys = keys
        self._issuers = dict(issuers)

    async def authenticate(self, token: str) -> Caller | None:
        """The caller behind a bearer token; None if the token is not valid.

        Raises:
            Unavailable: the authenticator does not answer.
        """
        caller, issuer, reason = None, "", "not valid"
        try:
            issuer = _issuer(token) if self._issuers else ""
            caller = await self._authenticator(token, issuer)(token)
        except InvalidTokenError as error:
            reason = str(error)
        if caller is None:
            _log.info("token_refused", issuer=issuer if issuer in self._issuers else "", reason=reason)
        return caller

    def _authenticator(self, token: str, issuer: str) -> Authenticator:
        if len(token) > MAX_LENGTH:
            raise InvalidTokenError(f"longer than {MAX_LENGTH} characters")
        return self._keys if token.startswith(PREFIX) else self._issuers.get(issuer, self._kubernetes)


def _issuer(token: str) -> str:
    """The unverified issuer of a JWT; empty if the token has none."""
    if token.count(".") != _DOTS or len(token) > MAX_LENGTH:
        return ""
    payload = token.split(".")[1]
    try:
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (ValueError, RecursionError):
        return ""
    issuer = claims.get("iss") if isinstance(claims, dict) else None
    return issuer if isinstance(issuer, str) else ""
