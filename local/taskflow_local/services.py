"""Prepares Redis and S3 for a stack: the bucket, and a user for the workers of each namespace, as the provisioner makes
them.
"""

import asyncio
import functools
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from minio import Minio

from taskflow_core.broker import acl
from taskflow_core.errors import TaskflowError, Unavailable
from taskflow_core.ledger.connect import connect_async
from taskflow_local.environments import (
    BUCKET,
    REGION,
    administrator_redis,
    fixed_redis_users,
    fixed_s3_users,
    login,
    storage_settings,
)
from taskflow_local.errors import LocalError
from taskflow_local.state import StackState
from taskflow_provisioner.redis_users import RedisUsers
from taskflow_provisioner.s3_logins import MinioLogins

_INITIAL_SECONDS = 30
_POLL_SECONDS = 0.05


def prepare(name: str, state: StackState, namespaces: Iterable[str]) -> None:
    """Prepare a running service for these namespaces. It may be repeated. Other components need nothing."""
    served = () if state.has_provisioner else tuple(namespaces)
    if name in ("minio", "versitygw"):
        _make_bucket(state, name)
    if name == "minio":
        _create_minio_users(state, served)
    if name == "redis":
        # In a thread of its own: the caller may have a running event loop.
        with ThreadPoolExecutor(1) as pool:
            pool.submit(lambda: asyncio.run(_create_redis_users(state, served))).result()


def _make_bucket(state: StackState, name: str) -> None:
    client = Minio(
        f"127.0.0.1:{state.ports[name]}",
        access_key=state.s3_access_key,
        secret_key=state.s3_secret_key,
        region=REGION,
        secure=False,
    )
    if not client.bucket_exists(BUCKET):
        client.make_bucket(BUCKET)


def _create_minio_users(state: StackState, namespaces: Iterable[str]) -> None:
    logins = MinioLogins(storage_settings(state), fixed_s3_users(state))
    _when_loaded(logins.mend_fixed)
    for namespace in namespaces:
        key = login(state, namespace).s3
        _when_loaded(functools.partial(logins.mend, namespace, key))


def _when_loaded(act: Callable[[], object]) -> None:
    """Wait until MinIO has loaded its users, which happens after it reports ready."""
    deadline = time.monotonic() + _INITIAL_SECONDS
    while True:
        try:
            act()
        except Unavailable as error:
            if time.monotonic() > deadline:
                raise LocalError(f"minio: cannot make its users: {error}") from error
            time.sleep(_POLL_SECONDS)
        except TaskflowError as error:
            raise LocalError(f"minio: cannot make its users: {error}") from error
        else:
            return


async def _create_redis_users(state: StackState, namespaces: Iterable[str]) -> None:
    client = connect_async(administrator_redis(state))
    wanted = fixed_redis_users(state)
    for namespace in namespaces:
        found = login(state, namespace)
        wanted[acl.worker_user(namespace)] = found.redis_rules(namespace, found.since)
    try:
        mended = await RedisUsers(client).mend(wanted)
    except TaskflowError as error:
        raise LocalError(f"redis: cannot make its users: {error}") from error
    finally:
        await client.aclose()
    if mended.failed:
        raise LocalError("; ".join(mended.failed.values()))
