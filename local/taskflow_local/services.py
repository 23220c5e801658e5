"""Prepares Redis and S3 for a stack: the bucket, and users for the API and the workers of each namespace."""

import time
from collections.abc import Iterable
from typing import Any

import redis
from minio import Minio
from minio.credentials import StaticProvider
from minio.error import MinioAdminException
from minio.minioadmin import MinioAdmin

from taskflow_core.blobs.policy import api_policy, worker_policy
from taskflow_core.broker import acl
from taskflow_local.environments import BUCKET, REGION
from taskflow_local.errors import LocalError
from taskflow_local.state import StackState

_INITIAL_SECONDS = 30
_POLL_SECONDS = 0.05


def prepare(name: str, state: StackState, namespaces: Iterable[str]) -> None:
    """Prepare a running service for these namespaces. It may be repeated. Other components need nothing."""
    if name in ("minio", "versitygw"):
        _make_bucket(state, name)
    if name == "minio":
        _create_minio_users(state, namespaces)
    if name == "redis":
        _create_redis_users(state, namespaces)


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
    admin = MinioAdmin(
        endpoint=f"127.0.0.1:{state.ports['minio']}",
        region=REGION,
        secure=False,
        credentials=StaticProvider(state.s3_access_key, state.s3_secret_key),
    )
    _create_minio_user(admin, acl.API, state.s3_api_secret_key, api_policy(BUCKET))
    for namespace in namespaces:
        key, policy = state.worker(namespace).s3_secret_key, worker_policy(namespace, BUCKET)
        _create_minio_user(admin, acl.worker_user(namespace), key, policy)


def _create_minio_user(admin: MinioAdmin, user: str, secret_key: str, policy: dict[str, Any]) -> None:
    # Only if needed: the key that encrypts the secret takes a second to derive.
    if not _user_exists(admin, user):
        admin.user_add(user, secret_key)
    admin.policy_add(user, policy=policy)
    admin.policy_set(user, user=user)


def _user_exists(admin: MinioAdmin, user: str) -> bool:
    """Whether MinIO has the user. Waits until MinIO has loaded its users, which happens after it reports ready."""
    deadline = time.monotonic() + _INITIAL_SECONDS
    while True:
        try:
            admin.user_info(user)
        except MinioAdminException as error:
            if "NoSuchUser" in str(error):
                return False
            if "NotInitialized" not in str(error) or time.monotonic() > deadline:
                raise LocalError(f"minio: cannot look up the user {user}: {error}") from error
            time.sleep(_POLL_SECONDS)
        else:
            return True


def _create_redis_users(state: StackState, namespaces: Iterable[str]) -> None:
    with redis.Redis(port=state.ports["redis"], password=state.redis_password) as client:
        client.execute_command(
            "ACL", "SETUSER", acl.OPERATOR, "reset", *acl.operator_rules(state.redis_operator_password)
        )
        client.execute_command("ACL", "SETUSER", acl.API, "reset", *acl.api_rules(state.redis_api_password))
        for namespace in namespaces:
            rules = acl.worker_rules(namespace, state.worker(namespace).redis_password)
            client.execute_command("ACL", "SETUSER", acl.worker_user(namespace), "reset", *rules)
