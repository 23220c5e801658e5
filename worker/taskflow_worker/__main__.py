"""`python -m taskflow_worker`: run handlers until SIGTERM.

Exit codes: 0 stopped as told, 2 settings or handlers are unusable (said on stderr).
"""

from __future__ import annotations

import sys

from pydantic import ValidationError

from taskflow_core.errors import Invalid
from taskflow_core.settings import LogSettings, RedisSettings, StorageSettings, explain
from taskflow_core.telemetry.logs import setup_logging
from taskflow_worker.app import Worker
from taskflow_worker.registry import discover
from taskflow_worker.settings import WorkerSettings


def main() -> int:
    """Read the environment, import the handlers, serve."""
    try:
        logs = LogSettings()
        setup_logging(logs, "worker")
        settings = WorkerSettings()
        worker_parts = (settings, RedisSettings(), StorageSettings(), logs)
        discover(settings.handlers)
    except ValidationError as error:
        print(*explain(error), sep="\n", file=sys.stderr)
        return 2
    except Invalid as error:
        print(f"taskflow-worker: {error}", file=sys.stderr)
        return 2
    return Worker(*worker_parts).run()


if __name__ == "__main__":
    sys.exit(main())
