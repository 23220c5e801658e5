"""The keys with which workers sign requests to the object store. Everything here blocks.

How a namespace gets its own key depends on the server: MinIO has users, AWS and others hand out temporary keys with a
session policy, and where there is neither, all namespaces share one key.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, timedelta
from typing import Any, Protocol
from urllib.parse import urlsplit

import urllib3
from minio.credentials import AssumeRoleProvider
from minio.error import MinioAdminException
from minio.minioadmin import MinioAdmin
from pydantic import SecretStr
from urllib3.exceptions import HTTPError

from taskflow_core.blobs.failures import connection_failure
from taskflow_core.blobs.policy import worker_policy
from taskflow_core.blobs.store import ObjectStore, S3Login, tls_context
from taskflow_core.broker import acl
from taskflow_core.domain import naming
from taskflow_core.errors import Dependency, Forbidden, Invalid, NotFound, Unavailable
from taskflow_core.settings import StorageSettings
from taskflow_provisioner.fixed_users import FixedUser
from taskflow_provisioner.logins import S3Key

_TIMEOUT = urllib3.Timeout(connect=5, read=30)


class S3Logins(Protocol):
    """The keys of all namespaces on one object store.

    All calls raise Unavailable (no answer), Forbidden (the administrator's key may not do it) and Invalid (this server
    cannot).
    """

    def fits(self, namespace: str, key: S3Key) -> bool:
        """Whether a key is one that `make` could have made for a namespace; does not ask the server."""

    def make(self, namespace: str, former: S3Key | None) -> S3Key:
        """A new key for a namespace; the former one stays valid."""

    def mend(self, namespace: str, key: S3Key) -> bool:
        """Make the server know the key, with the rights that it should have; True if anything was missing. A key that
        does not fit is left alone: whoever may write Secrets of a namespace may name any user there.
        """

    def mend_fixed(self) -> bool:
        """The same for the users of components."""

    def sweep(self, wanted: Collection[str], kept: Callable[[str], bool]) -> list[str]:
        """Remove the keys of namespaces that are not wanted; returns them.

        Args:
            wanted: access keys that stay.
            kept: whether keys of a namespace stay in any case.
        """


class MinioLogins:
    """A MinIO user for each namespace.

    The name of a user has the bucket in it: another installation on the same server has another bucket, and its users
    are left alone. A namespace has two names, so that a new user can be valid beside the former one.

    Args:
        storage: the server, with an administrator's key.
        fixed: users of components.
    """

    def __init__(self, storage: StorageSettings, fixed: Collection[FixedUser] = ()) -> None:
        self._storage = storage
        self._fixed = tuple(fixed)
        url = urlsplit(storage.endpoint)
        self._admin: Any = MinioAdmin(
            endpoint=url.netloc,
            region=storage.region,
            secure=url.scheme == "https",
            credentials=S3Login(storage),
            http_client=_connections(storage),
        )
        self._right: set[str] = set()
        """Users whose policy was set by this process."""

    def fits(self, namespace: str, key: S3Key) -> bool:
        """See `S3Logins`."""
        return key.kind == "own" and key.access_key in s3_users(namespace, self._storage.bucket)

    def make(self, namespace: str, former: S3Key | None) -> S3Key:
        """See `S3Logins`."""
        first, second = s3_users(namespace, self._storage.bucket)
        user = second if former is not None and former.access_key == first else first
        key = S3Key(user, secrets.token_hex(32), "own")
        self._put(user, key.secret_key, worker_policy(namespace, self._storage.bucket))
        return key

    def mend(self, namespace: str, key: S3Key) -> bool:
        """See `S3Logins`. Whether the server knows the key, its use shows."""
        if not self.fits(namespace, key):
            return False
        policy = worker_policy(namespace, self._storage.bucket)
        try:
            ObjectStore(_as(self._storage, key)).list(naming.object_prefix(namespace), limit=1)
        except Forbidden:
            self._put(key.access_key, key.secret_key, policy)
            return True
        if key.access_key not in self._right:
            # After an update, or because somebody widened it.
            self._allow(key.access_key, policy)
        return False

    def mend_fixed(self) -> bool:
        """See `S3Logins`. Their keys are set once by each process, and whenever a user is gone."""
        missing = [each for each in self._fixed if each.access_key not in self._right or not self._has(each.access_key)]
        for each in missing:
            self._put(each.access_key, each.secret_key, each.policy)
        return bool(missing)

    def sweep(self, wanted: Collection[str], kept: Callable[[str], bool]) -> list[str]:
        """See `S3Logins`."""
        with admin_errors():
            users = json.loads(self._admin.user_list())
        gone = [
            user
            for user in users
            if user not in wanted and (space := namespace_of(user, self._storage.bucket)) and not kept(space)
        ]
        for user in gone:
            # Not found: it was removed meanwhile.
            with suppress(NotFound), admin_errors():
                self._admin.user_remove(user)
            with suppress(NotFound), admin_errors():
                self._admin.policy_remove(user)
            self._right.discard(user)
        return gone

    def _has(self, user: str) -> bool:
        try:
            with admin_errors():
                self._admin.user_info(user)
        except NotFound:
            return False
        return True

    def _put(self, user: str, secret_key: str, policy: Mapping[str, Any]) -> None:
        with admin_errors():
            self._admin.user_add(user, secret_key)
        self._allow(user, policy)

    def _allow(self, user: str, policy: Mapping[str, Any]) -> None:
        with admin_errors():
            self._admin.policy_add(user, policy=policy)
            self._admin.policy_set(user, user=user)
        self._right.add(user)


class TemporaryLogins:
    """Keys that end by themselves, by `AssumeRole` with the namespace's policy as session policy. They cannot be taken
    back before.

    Args:
        storage: the server, with a key that may assume the role.
        sts_endpoint: http(s)://host:port of the service that hands them out.
        role: ARN of the role; MinIO needs none.
        lifetime: of a key.
    """

    def __init__(self, storage: StorageSettings, sts_endpoint: str, role: str, lifetime: timedelta) -> None:
        self._storage = storage
        self._endpoint = sts_endpoint
        self._role = role
        self._lifetime = lifetime

    def fits(self, namespace: str, key: S3Key) -> bool:  # noqa: ARG002 - the port's signature
        """See `S3Logins`."""
        return key.kind == "temporary"

    def make(self, namespace: str, former: S3Key | None) -> S3Key:  # noqa: ARG002 - the port's signature
        """See `S3Logins`."""
        provider = AssumeRoleProvider(
            sts_endpoint=self._endpoint,
            access_key=self._storage.access_key.get_secret_value(),
            secret_key=self._storage.secret_key.get_secret_value(),
            duration_seconds=int(self._lifetime.total_seconds()),
            policy=json.dumps(worker_policy(namespace, self._storage.bucket), separators=(",", ":")),
            region=self._storage.region,
            role_arn=self._role or None,
            # At most 64 characters, and a namespace has up to 63.
            role_session_name=f"tf-{namespace}"[:64],
            http_client=_connections(self._storage),
        )
        try:
            found = provider.retrieve()
        except HTTPError as error:
            raise Unavailable(
                f"object store: {connection_failure(error)}: AssumeRole", Dependency.OBJECT_STORE
            ) from error
        except ValueError as error:
            # The library has no error of its own; what the server said is in its text.
            raise Forbidden(f"object store: AssumeRole: {error}") from error
        expires = found.expiration
        return S3Key(
            found.access_key,
            found.secret_key,
            "temporary",
            found.session_token or "",
            None if expires is None else expires.replace(microsecond=0, tzinfo=expires.tzinfo or UTC),
        )

    def mend(self, namespace: str, key: S3Key) -> bool:  # noqa: ARG002 - the port's signature
        """See `S3Logins`. The server has nothing to mend."""
        return False

    def mend_fixed(self) -> bool:
        """See `S3Logins`. They are not made here."""
        return False

    def sweep(self, wanted: Collection[str], kept: Callable[[str], bool]) -> list[str]:  # noqa: ARG002 - the port's signature
        """See `S3Logins`. They end by themselves."""
        return []


class SharedLogin:
    """One key for all namespaces: each can read and write the objects of the others.

    Args:
        storage: with that key.
    """

    def __init__(self, storage: StorageSettings) -> None:
        self._storage = storage

    @property
    def _key(self) -> S3Key:
        # If it is in files, it may have changed.
        storage = self._storage
        return S3Key(storage.access_key.get_secret_value(), storage.secret_key.get_secret_value(), "shared")

    def fits(self, namespace: str, key: S3Key) -> bool:  # noqa: ARG002 - the port's signature
        """See `S3Logins`."""
        return key == self._key

    def make(self, namespace: str, former: S3Key | None) -> S3Key:  # noqa: ARG002 - the port's signature
        """See `S3Logins`."""
        return self._key

    def mend(self, namespace: str, key: S3Key) -> bool:  # noqa: ARG002 - the port's signature
        """See `S3Logins`. The server has nothing to mend."""
        return False

    def mend_fixed(self) -> bool:
        """See `S3Logins`. They are not made here."""
        return False

    def sweep(self, wanted: Collection[str], kept: Callable[[str], bool]) -> list[str]:  # noqa: ARG002 - the port's signature
        """See `S3Logins`."""
        return []


def s3_users(namespace: str, bucket: str) -> tuple[str, str]:
    """The two names that the user of a namespace may have."""
    user = acl.worker_user(namespace)
    return f"{user}@{bucket}", f"{user}.b@{bucket}"


def namespace_of(user: str, bucket: str) -> str | None:
    """The namespace whose user this is; None if it is none of this bucket's."""
    name, _, where = user.partition("@")
    namespace = name.removeprefix(acl.worker_user("")).removesuffix(".b")
    # A namespace has no dot.
    ours = where == bucket and namespace and "." not in namespace and user in s3_users(namespace, bucket)
    return namespace if ours else None


def _as(storage: StorageSettings, key: S3Key) -> StorageSettings:
    login = {"access_key": SecretStr(key.access_key), "secret_key": SecretStr(key.secret_key)}
    return storage.model_copy(update=login)


def _connections(storage: StorageSettings) -> urllib3.PoolManager:
    return urllib3.PoolManager(
        timeout=_TIMEOUT,
        retries=urllib3.Retry(total=1, connect=1, read=0, status=0, other=0, redirect=0),
        ssl_context=tls_context(storage),
    )


@contextmanager
def admin_errors() -> Iterator[None]:
    """Translate what MinIO's admin API says.

    Raises:
        NotFound: there is no such user or policy.
        Unavailable, Forbidden, Invalid: see `S3Logins`.
    """
    try:
        yield
    except MinioAdminException as error:
        code, said = int(error._code), _said(error._body)  # noqa: SLF001 - has no public name
        if said in ("XMinioAdminNoSuchUser", "XMinioAdminNoSuchPolicy"):
            raise NotFound(f"object store: {said}") from error
        if code == 403:  # noqa: PLR2004 - HTTP's own number
            raise Forbidden(f"object store: the provisioner's key may not manage users: {said}") from error
        if code >= 500 or code in (408, 429):  # noqa: PLR2004 - likewise
            raise Unavailable(f"object store: {code} {said}", Dependency.OBJECT_STORE) from error
        raise Invalid(
            f"object store: {code} {said}; if it is not MinIO, set TASKFLOW_PROVISIONER_S3_LOGINS to sts or shared"
        ) from error
    except HTTPError as error:
        raise Unavailable(f"object store: {connection_failure(error)}: admin API", Dependency.OBJECT_STORE) from error


def _said(body: str) -> str:
    try:
        found: Mapping[str, Any] = json.loads(body)
        return str(found["Code"])
    except (ValueError, KeyError, TypeError):
        return body[:200]
