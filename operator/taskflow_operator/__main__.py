"""`python -m taskflow_operator`: reconcile Tasks and WorkerPools until SIGTERM.

Exit codes: 0 stopped as told, 1 a part broke (see the log), 2 settings or credentials are unusable (said on stderr), 3 another operator
took the Lease.
"""

from __future__ import annotations

import asyncio
import signal
import sys

from pydantic import ValidationError

from taskflow_core.errors import Invalid
from taskflow_core.kube.client import KubeClient
from taskflow_core.settings import CacheSettings, DatabaseSettings, LogSettings, RedisSettings, explain
from taskflow_core.telemetry.logs import setup_logging
from taskflow_core.telemetry.tracing import setup_tracing
from taskflow_operator.assembly.operator import Operator
from taskflow_operator.kopf_handlers import lifecycle
from taskflow_operator.kopf_handlers.runner import KopfRunner
from taskflow_operator.process import gc_tuning
from taskflow_operator.process.leader_election import AlwaysLeader, LeaderElection, LeaseLeaderElection
from taskflow_operator.process.lifecycle import Exit, Lifecycle, end_now, limit_stop
from taskflow_operator.settings import OperatorSettings


async def serve(
    settings: OperatorSettings, redis: RedisSettings, caching: CacheSettings, database: DatabaseSettings
) -> Exit:
    """Run until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    # Each watch keeps a connection.
    kube = await KubeClient.connect(connections=32 + len(settings.namespaces))
    kube.cares_for, kube.namespaces = settings.cares_for, sorted(settings.namespaces)
    # Of its own: a renewal must not wait for a connection that lists or writes.
    lease_kube = await KubeClient.connect(connections=2)
    leadership: LeaderElection = AlwaysLeader()
    if settings.leader_election:
        leadership = LeaseLeaderElection(lease_kube, settings.leader_namespace, settings.leader_identity)
    operator = Operator(settings, redis, caching, database, kube, lease_kube, leadership, setup_tracing("operator"))
    operator.runner = KopfRunner(lifecycle.watch(operator.pools, settings))
    await operator.open()
    try:
        return await Lifecycle(leadership, operator, end_now, limit_stop).run(stop)
    finally:
        await operator.close()


def main() -> int:
    """Read the environment and serve."""
    try:
        logs = LogSettings()
        settings, redis, database = OperatorSettings(), RedisSettings(), DatabaseSettings()
        caching = CacheSettings()
    except ValidationError as error:
        print(*explain(error), sep="\n", file=sys.stderr)
        return Exit.UNUSABLE
    setup_logging(logs, "operator")
    gc_tuning.collect_rarely()
    try:
        return asyncio.run(serve(settings, redis, caching, database))
    except Invalid as error:
        print(f"taskflow-operator: {error}", file=sys.stderr)
        return Exit.UNUSABLE


if __name__ == "__main__":
    sys.exit(main())
