"""Signed tokens (JWT, RFC 7519): what they say is handed on only when the signature and the times are right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jwt

# Beside its own errors the library lets through some of what it meets in headers and claims: numbers that are no dates, texts
# nested too deep, bytes that are no text.
_REFUSALS = (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError)


class RefusedError(Exception):
    """A token that proves nothing; the message says for the log why, with nothing of the token."""


def header(token: str) -> dict[str, Any]:
    """What a token says of its own signature.

    Raises:
        RefusedError: it is no token.
    """
    try:
        return jwt.get_unverified_header(token)
    except _REFUSALS as error:
        raise RefusedError(type(error).__name__) from error


def claims(
    token: str,
    key: jwt.PyJWK | bytes,
    *,
    algorithms: Sequence[str],
    audience: str,
    issuer: str,
    require: Sequence[str] = (),
    leeway: float = 0,
) -> dict[str, Any]:
    """What a token says, if it is signed by the key, from the issuer, for the audience, and good now (`exp`, `nbf`, `iat`).

    Args:
        token: The token.
        key: Verifies the signature.
        algorithms: Others are refused, whatever the token says.
        audience: One of `aud`.
        issuer: Equal to `iss`.
        require: Claims that have to be there, beside `exp`, `iss` and `aud`.
        leeway: Seconds by which clocks may differ.

    Raises:
        RefusedError: it is not.
    """
    try:
        return jwt.decode(
            token,
            key,
            algorithms=algorithms,
            audience=audience,
            issuer=issuer,
            leeway=leeway,
            options={"require": ["exp", "iss", "aud", *require], "enforce_minimum_key_length": True},
        )
    except _REFUSALS as error:
        raise RefusedError(type(error).__name__) from error
