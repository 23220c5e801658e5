"""Tokens of an OIDC issuer, as kube-apiserver takes them: a claim names the user, another its groups, each with a prefix.

https://kubernetes.io/docs/reference/access-authn-authz/authentication/#openid-connect-tokens
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from taskflow_api.auth import Caller, Method
from taskflow_api.identity import signed
from taskflow_api.identity.jwks import KeySet
from taskflow_api.identity.signed import RefusedError
from taskflow_api.settings import OidcSettings

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Signatures that only the issuer can make. Neither `none` nor HS*, whose secret would be a public key."""
LEEWAY_SECONDS = 10
"""By how much clocks may differ."""
MAX_NAME = 256
_RESERVED = "system:"


class Oidc:
    """Takes tokens of one issuer."""

    def __init__(self, settings: OidcSettings, keys: KeySet) -> None:
        self.issuer = settings.issuer
        self._settings = settings
        self._keys = keys

    async def caller(self, token: str) -> Caller:
        """The identity that a token proves.

        Raises:
            RefusedError: it proves none.
            Unavailable: its key is not known, and the issuer does not answer.
        """
        header = signed.header(token)
        algorithm, kid = header.get("alg"), header.get("kid")
        if algorithm not in ALGORITHMS:
            raise RefusedError("algorithm")
        key = await self._keys.key(kid, algorithm)
        if key is None:
            raise RefusedError("unknown key")
        claims = signed.claims(
            token,
            key,
            algorithms=[algorithm],
            audience=self._settings.audience,
            issuer=self._settings.issuer,
            leeway=LEEWAY_SECONDS,
        )
        return caller_of(claims, self._settings)


def caller_of(claims: Mapping[str, Any], settings: OidcSettings) -> Caller:
    """The Kubernetes identity that the claims of a valid token tell. Never one of `system:`, which Kubernetes gives itself.

    Raises:
        RefusedError: they name nobody, or somebody whom they may not name.
    """
    name = claims.get(settings.username_claim)
    if not isinstance(name, str) or not name:
        raise RefusedError(f"claim {settings.username_claim}")
    if settings.username_claim == "email" and claims.get("email_verified") is not True:
        raise RefusedError("claim email_verified")
    username = settings.prefix(settings.username_prefix) + name
    if not _usable(username):
        raise RefusedError("user name")
    found = claims.get(settings.groups_claim, []) if settings.groups_claim else []
    named = [found] if isinstance(found, str) else found
    if not isinstance(named, list) or not all(isinstance(group, str) for group in named):
        raise RefusedError(f"claim {settings.groups_claim}")
    prefix = settings.prefix(settings.groups_prefix)
    groups = dict.fromkeys(prefix + group for group in named if group)
    # As Kubernetes does, everybody who proved who he is belongs to this group; a token cannot name it, or another of its kind.
    kept = (*(group for group in groups if _usable(group)), "system:authenticated")
    subject = claims.get("sub")
    return Caller(username, groups=kept, method=Method.OIDC, subject=subject if isinstance(subject, str) else name)


def _usable(name: str) -> bool:
    return len(name) <= MAX_NAME and name.isprintable() and not name.startswith(_RESERVED)
