"""The users of components, which the provisioner keeps beside those of the namespaces. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

from taskflow_core.blobs.policy import api_policy
from taskflow_core.broker import acl

REDIS_USERS: dict[str, Callable[[str], list[str]]] = {acl.OPERATOR: acl.operator_rules, acl.API: acl.api_rules}
"""The rules of each component's Redis user, from its password."""
S3_USERS: dict[str, Callable[[str], dict[str, Any]]] = {acl.API: api_policy}
"""The policy of each component's user of the object store, from the bucket."""


@dataclass(frozen=True)
class FixedUser:
    """A user of the object store."""

    access_key: str
    secret_key: str = field(repr=False)
    policy: Mapping[str, Any]


def redis_users(urls: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """The users in these Redis URLs that belong to components, and their rules. Other users are not ours to make."""
    found: dict[str, tuple[str, ...]] = {}
    for each in urls:
        url = urlsplit(each)
        if url.username in REDIS_USERS and url.password:
            found[url.username] = tuple(REDIS_USERS[url.username](unquote(url.password)))
    return found


def s3_users_of(keys: Mapping[str, str], bucket: str) -> tuple[FixedUser, ...]:
    """The users of the object store, of these secret keys by access key, that belong to components."""
    return tuple(
        FixedUser(access, secret, S3_USERS[access](bucket)) for access, secret in keys.items() if access in S3_USERS
    )
