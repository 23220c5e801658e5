"""`python -m taskflow_worker [--app MODULE:APP]`: run handlers until SIGTERM.

Exit codes: 0 stopped as told, 2 settings or handlers are unusable (said on stderr).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from pydantic import ValidationError

from taskflow_core.errors import Invalid
from taskflow_core.settings import LogSettings, RedisSettings, StorageSettings, explain
from taskflow_core.telemetry.logs import own_stdout, setup_logging
from taskflow_worker.adopting import adopt
from taskflow_worker.app import Worker
from taskflow_worker.registry import REGISTRY, discover
from taskflow_worker.settings import WorkerSettings


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the environment, import the handlers, serve."""
    parser = argparse.ArgumentParser(
        prog="taskflow-worker", description="Runs handlers; settings come from the environment."
    )
    parser.add_argument("--app", help="Celery application whose tasks to serve, module:attribute (TASKFLOW_WORKER_APP)")
    given = {name: value for name, value in vars(parser.parse_args(arguments)).items() if value is not None}
    try:
        logs = LogSettings()
        # Handlers get descriptors 1 and 2 for themselves while they run; the worker's own log keeps this one.
        setup_logging(logs, "worker", own_stdout())
        settings = WorkerSettings(**given)
        worker_parts = (settings, RedisSettings(), StorageSettings(), logs)
        discover(settings.handlers)
        if settings.app is not None:
            adopt(settings.app, REGISTRY)
    except ValidationError as error:
        print(*explain(error), sep="\n", file=sys.stderr)
        return 2
    except Invalid as error:
        print(f"taskflow-worker: {error}", file=sys.stderr)
        return 2
    return Worker(*worker_parts).run()


if __name__ == "__main__":
    sys.exit(main())
