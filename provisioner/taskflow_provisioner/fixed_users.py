"""The users of components, which the provisioner keeps beside those of the namespaces. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from urllib.parse import unquote, urlsplit

from taskflow_core.broker import acl

REDIS_USERS: dict[str, Callable[[str], list[str]]] = {acl.OPERATOR: acl.operator_rules, acl.API: acl.api_rules}
"""The rules of each component's Redis user, from its password."""


def redis_users(urls: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """The users in these Redis URLs that belong to components, and their rules. Other users are not ours to make."""
    found: dict[str, tuple[str, ...]] = {}
    for each in urls:
        url = urlsplit(each)
        if url.username in REDIS_USERS and url.password:
            found[url.username] = tuple(REDIS_USERS[url.username](unquote(url.password)))
    return found
