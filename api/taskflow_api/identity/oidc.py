"""Tokens of an OIDC issuer, mapped as kube-apiserver does: claims for the user and the groups, each with a prefix.

https://kubernetes.io/docs/reference/access-authn-authz/authentication/#openid-connect-tokens
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from taskflow_api.http.kubernetes_auth import Caller, Method
from taskflow_api.identity import jwt_validation
from taskflow_api.identity.jwks import KeySet
from taskflow_api.identity.jwt_validation import InvalidTokenError
from taskflow_api.settings import OidcSettings

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Asymmetric signatures. `none` and HS* are not accepted: the secret of HS* would be a public key."""
LEEWAY_SECONDS = 10
"""The accepted difference between clocks."""
MAX_NAME = 256
_RESERVED = "system:"


class Oidc:
    """Validates tokens of one issuer."""

    def __init__(self, settings: OidcSettings, keys: KeySet) -> None:
        self.issuer = settings.issuer
        self._settings = settings
        self._keys = keys

    async def caller(self, token: str) -> Caller:
        """The caller behind a token.

        Raises:
            InvalidTokenError: the token is not valid.
            Unavailable: its key is not cached, and the issuer does not answer.
        """
        header = jwt_validation.header(token)
        algorithm, kid = header.get("alg"), header.get("kid")
        if algorithm not in ALGORITHMS:
            raise InvalidTokenError("algorithm")
        key = await self._keys.key(kid, algorithm)
        if key is None:
            raise InvalidTokenError("unknown key")
        claims = jwt_validation.claims(
            token,
            key,
            algorithms=[algorithm],
            audience=self._settings.audience,
            issuer=self._settings.issuer,
            leeway=LEEWAY_SECONDS,
        )
        return caller_of(claims, self._settings)


def caller_of(claims: Mapping[str, Any], settings: OidcSettings) -> Caller:
    """The Kubernetes identity in the claims of a valid token. Names that start with `system:` are reserved.

    Raises:
        InvalidTokenError: the claims name no user, or a reserved one.
    """
    name = claims.get(settings.username_claim)
    if not isinstance(name, str) or not name:
        raise InvalidTokenError(f"claim {settings.username_claim}")
    if settings.username_claim == "email" and claims.get("email_verified") is not True:
        raise InvalidTokenError("claim email_verified")
    username = settings.prefix(settings.username_prefix) + name
    if not _usable(username):
        raise InvalidTokenError("user name")
    claimed = claims.get(settings.groups_claim, []) if settings.groups_claim else []
    named = [claimed] if isinstance(claimed, str) else claimed
    if not isinstance(named, list) or not all(isinstance(group, str) for group in named):
        raise InvalidTokenError(f"claim {settings.groups_claim}")
    prefix = settings.prefix(settings.groups_prefix)
    groups = dict.fromkeys(prefix + group for group in named if group)
    # Kubernetes adds this group to every authenticated user. Tokens cannot claim groups that start with `system:`.
    kept = (*(group for group in groups if _usable(group)), "system:authenticated")
    subject = claims.get("sub")
    return Caller(username, groups=kept, method=Method.OIDC, subject=subject if isinstance(subject, str) else name)


def _usable(name: str) -> bool:
    return len(name) <= MAX_NAME and name.isprintable() and not name.startswith(_RESERVED)
