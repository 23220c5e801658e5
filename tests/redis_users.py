"""Redis users as an administrator makes them, and what Redis refused them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from pydantic import SecretStr
from redis.lock import Lock

from taskflow_core.broker import acl
from taskflow_core.ledger.connect import script
from taskflow_core.ledger.scripting import WORKER_SCRIPTS
from taskflow_core.settings import RedisSettings

PASSWORD = "a-password-of-the-test"


def as_user(settings: RedisSettings, raw: Any, user: str, rules: Sequence[str]) -> RedisSettings:
    """The same Redis, as a user with these rules. What was refused before is forgotten."""
    raw.execute_command("ACL", "SETUSER", user, "reset", *rules)
    raw.execute_command("ACL", "LOG", "RESET")
    url = urlsplit(settings.url.get_secret_value())
    return RedisSettings(url=SecretStr(f"redis://{user}:{PASSWORD}@{url.hostname}:{url.port}{url.path}"))


def as_worker(settings: RedisSettings, raw: Any, namespace: str) -> RedisSettings:
    """The same Redis, as a worker of that namespace, with the scripts that the operator loads."""
    for source in (*map(script, WORKER_SCRIPTS), Lock.LUA_RELEASE_SCRIPT):
        raw.script_load(source)
    return as_user(settings, raw, acl.worker_user(namespace), acl.worker_rules(namespace, PASSWORD))


def refused(raw: Any) -> list[tuple[str, str, str]]:
    """What Redis refused whom, and why: (user, reason, object)."""
    entries = raw.execute_command("ACL", "LOG", "128")
    found = []
    for entry in entries:
        fields = entry if isinstance(entry, dict) else dict(zip(entry[0::2], entry[1::2], strict=True))
        found.append((fields["username"], fields["reason"], fields["object"]))
    return found
