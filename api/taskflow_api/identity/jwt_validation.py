"""Validation of JWTs (RFC 7519). Claims are returned only if the signature and the times are valid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jwt

# Besides its own errors, PyJWT raises these for invalid dates, deep nesting and invalid UTF-8 in headers and claims.
_REFUSALS = (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError)


class InvalidTokenError(Exception):
    """The token is not valid. The message is for the log and contains no part of the token."""


def header(token: str) -> dict[str, Any]:
    """The unverified header of a token.

    Raises:
        InvalidTokenError: the text is not a JWT.
    """
    try:
        return jwt.get_unverified_header(token)
    except _REFUSALS as error:
        raise InvalidTokenError(type(error).__name__) from error


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
    """The claims of a token with a valid signature, issuer, audience and times (`exp`, `nbf`, `iat`).

    Args:
        token: The token.
        key: Verifies the signature.
        algorithms: The accepted algorithms, whatever the token names.
        audience: Must be in `aud`.
        issuer: Must equal `iss`.
        require: Required claims in addition to `exp`, `iss` and `aud`.
        leeway: The accepted difference between clocks in seconds.

    Raises:
        InvalidTokenError: the token is not valid.
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
        raise InvalidTokenError(type(error).__name__) from error
