"""`python -m taskflow_operator`: reconcile Tasks and WorkerPools until SIGTERM.

Exit codes: 0 stopped as told, 1 a part broke (see the log), 2 settings or credentials are unusable (said on stderr).
"""

from __future__ import annotations

import asyncio
import sys

import kopf
from pydantic import ValidationError

from taskflow_core.errors import Invalid
from taskflow_core.kube.client import KubeClient
from taskflow_core.settings import DatabaseSettings, LogSettings, RedisSettings, explain
from taskflow_core.telemetry.logs import setup_logging
from taskflow_operator.handlers import lifecycle, pools, tasks
from taskflow_operator.settings import OperatorSettings
from taskflow_operator.wiring import Operator


async def serve(settings: OperatorSettings, redis: RedisSettings, database: DatabaseSettings) -> None:
    """Run until SIGTERM or SIGINT, which Kopf listens for."""
    operator = Operator(settings, redis, database, await KubeClient.connect())
    registry = kopf.OperatorRegistry()
    kopf_settings = kopf.OperatorSettings()
    lifecycle.configure(kopf_settings)
    lifecycle.register(registry, operator.start, operator.stop)
    tasks.register(registry, operator.observer)
    pools.register(registry, operator.pools)
    await kopf.operator(registry=registry, settings=kopf_settings, standalone=True, clusterwide=True)
    if operator.broken:
        raise SystemExit(1)


def main() -> int:
    """Read the environment and serve."""
    try:
        logs = LogSettings()
        settings, redis, database = OperatorSettings(), RedisSettings(), DatabaseSettings()
    except ValidationError as error:
        print(*explain(error), sep="\n", file=sys.stderr)
        return 2
    setup_logging(logs, "operator")
    try:
        asyncio.run(serve(settings, redis, database))
    except Invalid as error:
        print(f"taskflow-operator: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
