"""`python -m taskflow_operator`: reconcile Tasks and WorkerPools until SIGTERM.

Exit codes: 0 stopped by a signal; 1 a part failed, see the log; 2 settings or credentials are unusable, see stderr; 3
another operator took the Lease.
"""

from __future__ import annotations

import asyncio
import signal
import sys

from taskflow_core.errors import Invalid
from taskflow_core.settings import UNUSABLE, CacheSettings, DatabaseSettings, LogSettings, RedisSettings, explain
from taskflow_core.telemetry.logs import setup_logging
from taskflow_core.telemetry.tracing import setup_tracing
from taskflow_operator.assembly.foundation import Foundation
from taskflow_operator.assembly.operator import Operator
from taskflow_operator.process import gc_tuning
from taskflow_operator.process.lifecycle import Exit, Lifecycle, end_now, limit_stop
from taskflow_operator.settings import OperatorSettings


async def serve(
    settings: OperatorSettings,
    redis: RedisSettings,
    caching: CacheSettings,
    database: DatabaseSettings,
    logs: LogSettings,
) -> Exit:
    """Run until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    base = await Foundation.connect(settings, redis, caching, database, setup_tracing("operator"), logs)
    operator = Operator(base)
    await operator.open()
    try:
        return await Lifecycle(base.leadership, operator, end_now, limit_stop).run(stop)
    finally:
        await operator.close()


def main() -> int:
    """Read the environment and serve."""
    try:
        logs = LogSettings()
        settings, redis, database = OperatorSettings(), RedisSettings(), DatabaseSettings()
        caching = CacheSettings()
    except UNUSABLE as error:
        print(*explain(error), sep="\n", file=sys.stderr)
        return Exit.UNUSABLE
    setup_logging(logs, "operator")
    gc_tuning.collect_rarely()
    try:
        return asyncio.run(serve(settings, redis, caching, database, logs))
    except Invalid as error:
        print(f"taskflow-operator: {error}", file=sys.stderr)
        return Exit.UNUSABLE


if __name__ == "__main__":
    sys.exit(main())
