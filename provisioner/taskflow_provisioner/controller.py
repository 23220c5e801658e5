"""Compares the logins of all namespaces with what they should be, and mends what differs."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from taskflow_core.broker import acl
from taskflow_core.errors import Conflict, Invalid, TaskflowError
from taskflow_core.settings import StorageSettings
from taskflow_core.telemetry.logs import get_logger
from taskflow_provisioner import metrics, worker_secret
from taskflow_provisioner.cluster import Cluster, Found
from taskflow_provisioner.logins import Action, Login, Rotation, decide
from taskflow_provisioner.notices import Notices
from taskflow_provisioner.redis_users import RedisUsers
from taskflow_provisioner.s3_logins import S3Logins

log = get_logger(__name__)
_WORKER_PREFIX = acl.worker_user("")
_CHANGES = {Action.MAKE: "made", Action.ROTATE: "rotated", Action.RETIRE: "retired"}


@dataclass(frozen=True)
class Place:
    """Where the workers find Redis and the object store, whoever's logins these have."""

    redis_url: str
    storage: StorageSettings
    redis_ca: str = ""
    """Authorities (PEM) by which the certificate of Redis is verified, besides the system's."""


class Provisioner:
    """Keeps the logins of all namespaces.

    The Secret of a namespace is the truth about its login. What Redis and the object store have is made to agree with
    it, so nothing is lost with them or with this process.

    Args:
        cluster: the API server.
        redis: the users in Redis.
        s3: the keys of the object store.
        place: where both are.
        rotation: when logins are replaced.
        notices: tells people.
        installation: name of the installation, which tells its Secrets from those of another in the same cluster.
        fixed: the rules of Redis users that are always there.
        now: the time.
    """

    def __init__(
        self,
        cluster: Cluster,
        redis: RedisUsers,
        s3: S3Logins,
        place: Place,
        rotation: Rotation,
        notices: Notices,
        *,
        installation: str = worker_secret.INSTALLATION,
        fixed: Mapping[str, tuple[str, ...]] | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._cluster = cluster
        self._redis = redis
        self._s3 = s3
        self._place = place
        self._rotation = rotation
        self._notices = notices
        self._installation = installation
        self._fixed = dict(fixed or {})
        self._clock = now
        self._logins: dict[str, Login] = {}
        self._wanted: frozenset[str] | None = None
        self._foreign: frozenset[str] = frozenset()
        self._unsure: set[str] = set()
        """Namespaces of which it is not known whether their Secret has the login that Redis got last."""
        self._announced: dict[str, Login] = {}
        self.complete_at: float | None = None
        """When everything was compared last, and not in vain for all namespaces (monotonic seconds)."""

    def _now(self) -> datetime:
        # Whole seconds, as the Secret keeps them.
        return self._clock().replace(microsecond=0)

    async def compare(self) -> bool:
        """One round: everything. A namespace that fails does not stop the others; False if one did.

        Raises:
            Unavailable, Conflict, Forbidden: the API server or Redis cannot be read.
        """
        with metrics.ROUND.time():
            found = await self._cluster.look()
            gone = self._gone(found) if self._cluster.labelled else {}
            ours = {name for name, body in found.secrets.items() if name in found.wanted and self._is_ours(body)}
            self._wanted, self._foreign = found.wanted, frozenset(found.secrets.keys() - ours - gone.keys())
            self._logins = {name: login for name, login in self._logins.items() if name in found.wanted}
            failing: set[str] = set()
            for namespace in sorted(found.wanted):
                try:
                    await self._provide(namespace, found)
                except Exception as error:  # noqa: BLE001 - one namespace must not stop the others
                    failing.add(namespace)
                    await self._failed(namespace, error)
            await self.mend_redis()
            await self._mend_s3(failing)
            for secret in gone.values():
                await self._take_back(secret)
            states = {"foreign": len(self._foreign & found.wanted), "failing": len(failing)}
            for state, count in (states | {"ready": len(found.wanted) - sum(states.values())}).items():
                metrics.NAMESPACES.labels(state=state).set(count)
            if not failing or failing != found.wanted:
                self.complete_at = time.monotonic()
            return not failing

    async def mend_redis(self) -> None:
        """Make the users of Redis what they should be, by what is known of the namespaces.

        Raises:
            Unavailable: Redis does not answer.
        """
        now = self._now()
        wanted = dict(self._fixed)
        wanted |= {
            acl.worker_user(name): login.redis_rules(name, now)
            for name, login in self._logins.items()
            if name not in self._unsure
        }
        mended = await self._redis.mend(wanted, self._removable)
        if count := len(mended.changes.put) - len(mended.failed):
            metrics.REPAIRS.labels(store="redis").inc(count)
            log.info("redis_users_set", users=len(mended.changes.put), removed=list(mended.changes.remove))
        for user, why in mended.failed.items():
            log.error("redis_user_refused", user=user, error=why)
            metrics.FAILURES.labels(kind="namespace").inc()
            if (namespace := user.removeprefix(_WORKER_PREFIX)) in self._logins:
                await self._notices.post(namespace, "LoginsFailing", why, warning=True)

    def _removable(self, user: str) -> bool:
        """Whether an unwanted Redis user is a worker's that we made. Where somebody else keeps the Secret, they also
        made the user. One of a namespace that could not be compared stays.
        """
        if self._wanted is None or not self._cluster.labelled or not user.startswith(_WORKER_PREFIX):
            return False
        return user.removeprefix(_WORKER_PREFIX) not in self._foreign | self._wanted

    async def _provide(self, namespace: str, found: Found) -> None:
        self._unsure.discard(namespace)
        secret = found.secrets.get(namespace)
        if secret is not None and not self._is_ours(secret):
            self._logins.pop(namespace, None)
            await self._say_foreign(namespace)
            return
        login = None if secret is None else worker_secret.kept_login(namespace, secret)
        request = "" if secret is None else worker_secret.request_of(secret)
        fits = login is None or self._s3.fits(namespace, login.s3)
        action = decide(login, request, self._now(), self._rotation, s3_fits=fits)
        try:
            if login is None or secret is None:
                login = await self._make(namespace, request, secret)
            elif action is Action.ROTATE:
                login = await self._rotate(namespace, login, request, secret)
            elif action is Action.RETIRE:
                login = await self._retire(namespace, login, secret)
            elif not worker_secret.has_values(secret, self._values(namespace, login)):
                # An address changed, or somebody changed the Secret.
                login = await self._store(namespace, replace(login, since=self._now(), replaces=True), secret)
        except Conflict:
            # It was made or changed by somebody else after the list. A change wakes the next round.
            self._unsure.discard(namespace)
            self._logins.pop(namespace, None)
            if secret is None:
                await self._say_foreign(namespace)
            return
        self._logins[namespace] = login
        if action is not Action.KEEP:
            log.info("login_changed", namespace=namespace, change=_CHANGES[action])
            metrics.CHANGES.labels(change=_CHANGES[action]).inc()
            await self._notices.post(namespace, f"Logins{_CHANGES[action].title()}", self._said(action, login))
        if login.replaces and self._announced.get(namespace) != login:
            await self._cluster.announce(namespace, login.since, worker_secret.since_text(login))
            self._announced[namespace] = login

    @staticmethod
    def _said(action: Action, login: Login) -> str:
        if action is Action.MAKE:
            return f"The Secret taskflow-worker has logins: a Redis user of its own; S3 key: {login.s3.kind}"
        if login.former is not None:
            return f"Workers have another login; the former one is valid until {login.former.until.isoformat()}"
        return "The former login is refused from now on"

    async def _make(self, namespace: str, request: str, former: Mapping[str, Any] | None) -> Login:
        key = await asyncio.to_thread(self._s3.make, namespace, None)
        replaces = former is not None or namespace in self._logins
        login = Login(secrets.token_hex(32), key, self._now(), replaces=replaces, served_request=request)
        return await self._store(namespace, login, former)

    async def _rotate(self, namespace: str, login: Login, request: str, secret: Mapping[str, Any]) -> Login:
        key = await asyncio.to_thread(self._s3.make, namespace, login.s3)
        new = login.followed_by(secrets.token_hex(32), key, request, self._now(), self._rotation.grace)
        return await self._store(namespace, new, secret)

    async def _retire(self, namespace: str, login: Login, secret: Mapping[str, Any]) -> Login:
        """The login without its former one, once no server takes that any more."""
        await asyncio.to_thread(self._s3.sweep, {login.s3.access_key}, lambda name: name != namespace)
        return await self._store(namespace, replace(login, former=None), secret)

    async def _store(self, namespace: str, login: Login, secret: Mapping[str, Any] | None) -> Login:
        # Redis knows it before anybody can read it in the Secret.
        user = acl.worker_user(namespace)
        mended = await self._redis.mend({user: login.redis_rules(namespace, self._now())})
        if mended.failed:
            raise Invalid(mended.failed[user])
        values = self._values(namespace, login)
        # An answer that is lost leaves both open; Redis knows the former password too.
        self._unsure.add(namespace)
        wanted = worker_secret.manifest(namespace, values, login, self._installation)
        await self._cluster.apply_secret(wanted, secret)
        self._unsure.discard(namespace)
        return login

    def _gone(self, found: Found) -> dict[str, dict[str, Any]]:
        """Secrets that this provisioner made in namespaces that are not served any more."""
        return {
            name: body
            for name, body in found.secrets.items()
            if name not in found.wanted and self._is_ours(body) and worker_secret.keeper(body) == self._installation
        }

    def _is_ours(self, secret: Mapping[str, Any]) -> bool:
        return worker_secret.is_ours(secret, self._installation)

    def _values(self, namespace: str, login: Login) -> dict[str, str]:
        values = worker_secret.worker_values(namespace, self._place.redis_url, self._place.storage, login)
        return values | ({"TASKFLOW_REDIS_CA": self._place.redis_ca} if self._place.redis_ca else {})

    async def _mend_s3(self, failing: set[str]) -> None:
        now = self._now()
        try:
            if await asyncio.to_thread(self._s3.mend_fixed):
                log.info("s3_users_of_components_set")
        except TaskflowError as error:
            metrics.FAILURES.labels(kind="round").inc()
            log.warning("s3_users_of_components_failed", error=str(error))
        for namespace, login in self._logins.items():
            try:
                if await asyncio.to_thread(self._s3.mend, namespace, login.s3):
                    metrics.REPAIRS.labels(store="s3").inc()
                    log.warning("s3_key_set_again", namespace=namespace)
            except Exception as error:  # noqa: BLE001 - one namespace must not stop the others
                failing.add(namespace)
                await self._failed(namespace, error)
        if not self._cluster.labelled:
            return
        wanted = {key for login in self._logins.values() for key in login.s3_access_keys(now)}
        kept = self._foreign | failing | ((self._wanted or frozenset()) - self._logins.keys())
        try:
            removed = await asyncio.to_thread(self._s3.sweep, wanted, kept.__contains__)
        except TaskflowError as error:
            metrics.FAILURES.labels(kind="round").inc()
            log.warning("s3_sweep_failed", error=str(error))
        else:
            if removed:
                log.info("s3_keys_removed", keys=removed)

    async def _take_back(self, secret: dict[str, Any]) -> None:
        """Delete the Secret of a namespace whose users are gone."""
        namespace = secret["metadata"]["namespace"]
        try:
            await self._cluster.delete_secret(secret)
        except TaskflowError as error:
            await self._failed(namespace, error)
            return
        log.info("login_changed", namespace=namespace, change="taken-back")
        metrics.CHANGES.labels(change="taken-back").inc()
        await self._notices.post(namespace, "LoginsTakenBack", "Workers have no login any more; their pods cannot work")
        self._notices.forget(namespace)
        self._announced.pop(namespace, None)

    async def _say_foreign(self, namespace: str) -> None:
        note = (
            "The Secret taskflow-worker is kept by somebody else, so it was left as it is; delete it to get logins, or "
            "remove the label taskflow.dev/workers"
        )
        log.warning("foreign_secret", namespace=namespace)
        await self._notices.post(namespace, "ForeignSecret", note, warning=True)

    async def _failed(self, namespace: str, error: Exception) -> None:
        known = isinstance(error, TaskflowError)
        log.error("namespace_failed", namespace=namespace, error=str(error), exc_info=None if known else error)
        metrics.FAILURES.labels(kind="namespace").inc()
        note = str(error) if known else f"unexpected: {type(error).__name__}"
        await self._notices.post(namespace, "LoginsFailing", note, warning=True)


async def run(provisioner: Provisioner, cluster: Cluster, check_seconds: float, resync_seconds: float) -> None:
    """Compare everything whenever something changes and at intervals, and Redis more often, until cancelled."""
    changed = asyncio.Event()
    changed.set()
    due = 0.0
    async with asyncio.TaskGroup() as group:
        group.create_task(cluster.watch(changed))
        while True:
            try:
                if changed.is_set() or time.monotonic() >= due:
                    changed.clear()
                    due = time.monotonic() + resync_seconds
                    if not await provisioner.compare():
                        due = 0.0
                else:
                    await provisioner.mend_redis()
            except TaskflowError as error:
                metrics.FAILURES.labels(kind="round").inc()
                log.warning("round_failed", error=str(error))
                # Everything again: what was not compared may differ.
                due = 0.0
            try:
                async with asyncio.timeout(check_seconds):
                    await changed.wait()
            except TimeoutError:
                continue
            # Changes come in bursts, such as ours to a Secret.
            await asyncio.sleep(min(0.2, check_seconds))
