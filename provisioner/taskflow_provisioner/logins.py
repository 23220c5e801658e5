"""The login of a namespace's workers, and what is to happen to it. Pure."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from taskflow_core.broker import acl


@dataclass(frozen=True)
class S3Key:
    """What the workers of a namespace sign with."""

    access_key: str
    secret_key: str = field(repr=False)
    kind: str
    """What it is, in a word: `own`, `temporary` or `shared`."""
    session_token: str = field(default="", repr=False)
    expires: datetime | None = None
    """Of a temporary key."""


@dataclass(frozen=True)
class Former:
    """The login before this one. It stays valid while the workers that hold it are replaced."""

    redis_digest: str
    """SHA-256 of its password, hexadecimal: enough for Redis."""
    s3_access_key: str
    until: datetime


@dataclass(frozen=True)
class Login:
    """What the workers of a namespace log in with."""

    redis_password: str = field(repr=False)
    s3: S3Key
    since: datetime
    replaces: bool = False
    """Workers that were started before may hold another login."""
    served_request: str = ""
    """The request for another login that was answered last."""
    former: Former | None = None

    def former_at(self, now: datetime) -> Former | None:
        """The former login, while it is still valid."""
        return self.former if self.former is not None and now < self.former.until else None

    def redis_rules(self, namespace: str, now: datetime) -> tuple[str, ...]:
        """The Redis user of the namespace, as arguments of `ACL SETUSER`."""
        rules = acl.worker_rules(namespace, self.redis_password)
        if (former := self.former_at(now)) is not None:
            rules.append(f"#{former.redis_digest}")
        return tuple(rules)

    def s3_access_keys(self, now: datetime) -> frozenset[str]:
        """The access keys that are valid."""
        former = self.former_at(now)
        return frozenset({self.s3.access_key} if former is None else {self.s3.access_key, former.s3_access_key})

    def followed_by(self, password: str, s3: S3Key, request: str, now: datetime, grace: timedelta) -> Login:
        """The next login, with this one valid for the time of grace."""
        former = Former(hashlib.sha256(self.redis_password.encode()).hexdigest(), self.s3.access_key, now + grace)
        return Login(password, s3, now, replaces=True, served_request=request, former=former)


@dataclass(frozen=True)
class Rotation:
    """When a login is replaced."""

    grace: timedelta
    """How long the former login stays valid."""
    after: timedelta | None = None
    """Age at which a login is replaced at the latest; None: only on request."""

    def age_for(self, login: Login) -> timedelta | None:
        """The age at which this login is replaced: in the last tenth of the time, another one for each, so that not all
        pools of a cluster are replaced at once.
        """
        if self.after is None:
            return None
        draw = int.from_bytes(hashlib.sha256(login.redis_password.encode()).digest()[:4]) / 2**32
        return self.after * (1 - draw / 10)


class Action(StrEnum):
    """What is to happen to a login."""

    KEEP = "keep"
    MAKE = "make"
    ROTATE = "rotate"
    RETIRE = "retire"
    """The former login is over."""


def decide(login: Login | None, request: str, now: datetime, rotation: Rotation, *, s3_fits: bool = True) -> Action:
    """What is to happen to the login of a namespace.

    Args:
        login: the one that its Secret keeps, if it keeps one.
        request: the latest request for another login, any text; empty if there is none.
        now: the time.
        rotation: when logins are replaced.
        s3_fits: whether its S3 key is one as they are made now.
    """
    if login is None:
        return Action.MAKE
    if login.former is not None:
        # One after the other: a third login would leave the workers of the first without any.
        return Action.KEEP if login.former_at(now) else Action.RETIRE
    if not s3_fits or (request and request != login.served_request):
        return Action.ROTATE
    if (age := rotation.age_for(login)) is not None and now - login.since >= age:
        return Action.ROTATE
    if login.s3.expires is not None and now - login.since >= (login.s3.expires - login.since) / 2:
        return Action.ROTATE
    return Action.KEEP
