"""What Redis and S3 get before they serve a stack: the bucket, and a user of its own for the workers of each namespace."""

from collections.abc import Iterable

import redis
from minio import Minio
from minio.credentials import StaticProvider
from minio.error import MinioAdminException
from minio.minioadmin import MinioAdmin

from taskflow_core.blobs.policy import worker_policy
from taskflow_core.broker import acl
from taskflow_local.components import BUCKET, REGION
from taskflow_local.state import Memory

_ATTACHED = "PolicyChangeAlreadyApplied"


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
        admin.user_add(user, memory.worker(namespace).s3_secret_key)
        admin.policy_add(user, policy=worker_policy(namespace, BUCKET))
        try:
            admin.attach_policy([user], user=user)
        except MinioAdminException as error:
            if _ATTACHED not in str(error):
                raise


def _admit_to_redis(memory: Memory, namespaces: Iterable[str]) -> None:
    with redis.Redis(port=memory.ports["redis"], password=memory.redis_password) as client:
        client.execute_command("ACL", "SETUSER", acl.OPERATOR, "reset", *acl.operator_rules(memory.redis_operator_password))
        for namespace in namespaces:
            rules = acl.worker_rules(namespace, memory.worker(namespace).redis_password)
            client.execute_command("ACL", "SETUSER", acl.worker_user(namespace), "reset", *rules)
