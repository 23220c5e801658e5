"""`python -m taskflow_worker [--app MODULE:APP] [--once]`: run handlers until SIGTERM, or the one attempt of a pod of its own.

Exit codes: 0 stopped as told, or the attempt's end was told; 1 the attempt could not be begun, or its end not be told, or a
thread did not come back; 2 settings or handlers are unusable (said on stderr).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from pydantic import ValidationError

from taskflow_core.domain.slots import PoolKind
from taskflow_core.errors import Invalid
from taskflow_core.settings import LogSettings, RedisSettings, StorageSettings, explain
from taskflow_core.telemetry.logs import own_stdout, setup_logging
from taskflow_worker.adopting import adopt
from taskflow_worker.app import Worker
from taskflow_worker.once import Once
from taskflow_worker.registry import REGISTRY, discover
from taskflow_worker.settings import WorkerSettings
from taskflow_worker.threads import OUTPUT


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the environment, import the handlers, serve."""
    parser = argparse.ArgumentParser(
        prog="taskflow-worker", description="Runs handlers; settings come from the environment."
    )
    parser.add_argument("--app", help="Celery application whose tasks to serve, module:attribute (TASKFLOW_WORKER_APP)")
    parser.add_argument(
        "--once", action="store_true", help="run the one attempt that TASKFLOW_WORKER_ONCE names, then end"
    )
    parsed = vars(parser.parse_args(arguments))
    once: bool = parsed.pop("once")
    given = {name: value for name, value in parsed.items() if value is not None}
    try:
        logs = LogSettings()
        # Handlers get descriptors 1 and 2 for themselves while they run; the worker's own log keeps this one.
        setup_logging(logs, "worker", own_stdout())
        settings = WorkerSettings(**given)
        worker_parts = (settings, RedisSettings(), StorageSettings(), logs)
        if once and settings.once is None:
            print("taskflow-worker: --once needs TASKFLOW_WORKER_ONCE, which names the attempt", file=sys.stderr)
            return 2
        if settings.once is None and settings.pool_kind is PoolKind.THREADS:
            # Before handlers are imported, whose loggers may keep the streams that they find.
            OUTPUT.install()
        discover(settings.handlers)
        if settings.app is not None:
            adopt(settings.app, REGISTRY)
    except ValidationError as error:
        print(*explain(error), sep="\n", file=sys.stderr)
        return 2
    except Invalid as error:
        print(f"taskflow-worker: {error}", file=sys.stderr)
        return 2
    # By the variable alone: a command of the pool's own may have swallowed the argument, and this pod must serve no queue.
    if settings.once is not None:
        return Once(settings.once, *worker_parts).run()
    return Worker(*worker_parts).run()


if __name__ == "__main__":
    sys.exit(main())
