"""`python -m taskflow_provisioner`: keep the logins of workers until SIGTERM.

Run one. Two would not harm, but rotate a login twice.

Exit codes: 0 stopped by a signal; 2 settings or credentials are unusable, see stderr.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
import time
from contextlib import suppress
from datetime import timedelta

from taskflow_core.errors import Invalid
from taskflow_core.kube.client import KubeClient
from taskflow_core.ledger.connect import connect_async
from taskflow_core.settings import UNUSABLE, LogSettings, RedisSettings, StorageSettings, explain
from taskflow_core.telemetry.logs import setup_logging
from taskflow_provisioner import health
from taskflow_provisioner.cluster import Cluster
from taskflow_provisioner.controller import Place, Provisioner, run
from taskflow_provisioner.fixed_users import redis_users, s3_users_of
from taskflow_provisioner.logins import Rotation
from taskflow_provisioner.notices import Notices
from taskflow_provisioner.redis_users import RedisUsers
from taskflow_provisioner.s3_logins import MinioLogins, S3Logins, SharedLogin, TemporaryLogins
from taskflow_provisioner.settings import ProvisionerSettings

_LATE_ROUNDS = 3


def s3_logins(settings: ProvisionerSettings, storage: StorageSettings) -> S3Logins:
    """How namespaces get their keys of the object store."""
    if settings.s3_logins == "sts":
        endpoint = settings.sts_endpoint or storage.endpoint
        return TemporaryLogins(storage, endpoint, settings.sts_role, timedelta(seconds=settings.sts_seconds))
    if settings.s3_logins == "shared":
        return SharedLogin(storage)
    secret = settings.api_s3_secret_key
    keys = {} if secret is None else {settings.api_s3_access_key: secret.get_secret_value()}
    return MinioLogins(storage, s3_users_of(keys, storage.bucket))


async def serve(settings: ProvisionerSettings, redis: RedisSettings, storage: StorageSettings) -> None:
    """Run until SIGTERM or SIGINT."""
    kube, client = await KubeClient.connect(connections=8), connect_async(redis)
    cluster = Cluster(kube, settings.namespaces, labelled=settings.labelled, left_out=settings.namespaces_left_out)
    components = (settings.operator_redis_url, settings.api_redis_url)
    provisioner = Provisioner(
        cluster,
        RedisUsers(client),
        s3_logins(settings, storage),
        Place(redis.url.get_secret_value(), storage, redis.ca),
        Rotation(timedelta(seconds=settings.grace_seconds), settings.rotate_after),
        Notices(kube, socket.gethostname()),
        installation=settings.installation,
        fixed=redis_users(url.get_secret_value() for url in components if url is not None),
    )

    def problem() -> str | None:
        if provisioner.complete_at is None:
            return "not everything was compared yet; see the log"
        silent = time.monotonic() - provisioner.complete_at
        late = silent > _LATE_ROUNDS * (settings.resync_seconds + settings.check_seconds)
        return f"not everything could be compared for {silent:.0f} s; see the log" if late else None

    runner = await health.start(settings.health_host, settings.health_port, problem)
    main_task = asyncio.create_task(run(provisioner, cluster, settings.check_seconds, settings.resync_seconds))
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, main_task.cancel)
    try:
        with suppress(asyncio.CancelledError):
            await main_task
    finally:
        await runner.cleanup()
        await client.aclose()
        await kube.close()


def main() -> int:
    """Read the environment and serve."""
    try:
        logs = LogSettings()
        settings, redis, storage = ProvisionerSettings(), RedisSettings(), StorageSettings()
    except UNUSABLE as error:
        print(*explain(error), sep="\n", file=sys.stderr)
        return 2
    setup_logging(logs, "provisioner")
    try:
        asyncio.run(serve(settings, redis, storage))
    except Invalid as error:
        print(f"taskflow-provisioner: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
