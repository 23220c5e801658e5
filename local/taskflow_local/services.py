"""What Redis and S3 get before they serve a stack: the bucket, and a user of its own for the workers of each namespace."""

import time
from collections.abc import Iterable

import redis
from minio import Minio
from minio.credentials import StaticProvider
from minio.error import MinioAdminException
from minio.minioadmin import MinioAdmin

from taskflow_core.blobs.policy import worker_policy
from taskflow_core.broker import acl
from taskflow_local.components import BUCKET, REGION
from taskflow_local.errors import LocalError
from taskflow_local.state import Memory

_INITIAL_SECONDS = 30
_POLL_SECONDS = 0.05


def prepare(name: str, memory: Memory, namespaces: Iterable[str]) -> None:
    """Bring a running service up to date for these namespaces; repeatable. Other components need nothing."""
    if name in ("minio", "versitygw"):
        _make_bucket(memory, name)
    if name == "minio":
        _admit_to_minio(memory, namespaces)
    if name == "redis":
        _admit_to_redis(memory, namespaces)


def _make_bucket(memory: Memory, name: str) -> None:
    client = Minio(
        f"127.0.0.1:{memory.ports[name]}", access_key=memory.s3_access_key, secret_key=memory.s3_secret_key,
        region=REGION, secure=False,
    )  # fmt: skip
    if not client.bucket_exists(BUCKET):
        client.make_bucket(BUCKET)


def _admit_to_minio(memory: Memory, namespaces: Iterable[str]) -> None:
    admin = MinioAdmin(
        endpoint=f"127.0.0.1:{memory.ports['minio']}", region=REGION, secure=False,
        credentials=StaticProvider(memory.s3_access_key, memory.s3_secret_key),
    )  # fmt: skip
    for namespace in namespaces:
        user = acl.worker_user(namespace)
        # A secret is sent encrypted by a key whose derivation takes a second.
        if not _is_known(admin, user):
            admin.user_add(user, memory.worker(namespace).s3_secret_key)
        admin.policy_add(user, policy=worker_policy(namespace, BUCKET))
        admin.policy_set(user, user=user)


def _is_known(admin: MinioAdmin, user: str) -> bool:
    """Whether MinIO has the user; waits until it has read its users, which it does after it says that it is ready."""
    deadline = time.monotonic() + _INITIAL_SECONDS
    while True:
        try:
            admin.user_info(user)
        except MinioAdminException as error:
            if "NoSuchUser" in str(error):
                return False
            if "NotInitialized" not in str(error) or time.monotonic() > deadline:
                raise LocalError(f"minio: could not be asked for the user {user}: {error}") from error
            time.sleep(_POLL_SECONDS)
        else:
            return True


def _admit_to_redis(memory: Memory, namespaces: Iterable[str]) -> None:
    with redis.Redis(port=memory.ports["redis"], password=memory.redis_password) as client:
        client.execute_command(
            "ACL", "SETUSER", acl.OPERATOR, "reset", *acl.operator_rules(memory.redis_operator_password)
        )
        client.execute_command("ACL", "SETUSER", acl.API, "reset", *acl.api_rules(memory.redis_api_password))
        for namespace in namespaces:
            rules = acl.worker_rules(namespace, memory.worker(namespace).redis_password)
            client.execute_command("ACL", "SETUSER", acl.worker_user(namespace), "reset", *rules)
