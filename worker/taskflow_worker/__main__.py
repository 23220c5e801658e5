"""`taskflow-worker [--app MODULE:APP] [--once]`: run handlers until SIGTERM, or run one attempt and end.

`python -m taskflow_worker` is the same. `taskflow-worker describe` is in `describe/cli.py`.

Exit codes:
    0: the worker was stopped, or the end of its one attempt was reported.
    1: Redis did not answer at the start, the attempt could not start or its end could not be reported, or a thread did
       not return; stderr or the log says why.
    2: settings or handlers are unusable; stderr says why.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from taskflow_core.domain.slots import PoolKind
from taskflow_core.errors import Invalid
from taskflow_core.settings import UNUSABLE, LogSettings, RedisSettings, StorageSettings, explain
from taskflow_core.telemetry.logs import own_stdout, setup_logging
from taskflow_worker.handlers.celery_tasks import adopt
from taskflow_worker.output import own_logging
from taskflow_worker.process.app import Worker
from taskflow_worker.process.once import OnceWorker
from taskflow_worker.process.reach import reach_redis
from taskflow_worker.process.threads import PROCESS_OUTPUT
from taskflow_worker.sdk.registry import REGISTRY, discover
from taskflow_worker.settings import WorkerSettings


def main(arguments: Sequence[str] | None = None) -> int:
    """Describe the handlers, or read the environment, import the handlers and run. Returns the exit code."""
    given_arguments = sys.argv[1:] if arguments is None else arguments
    if given_arguments[:1] == ["describe"]:
        # Only then is YAML needed.
        from taskflow_worker.describe.cli import main as describe  # noqa: PLC0415

        return describe(given_arguments[1:])
    return _run(given_arguments)


def _run(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="taskflow-worker",
        description="Runs handlers. Settings come from the environment.",
        epilog="taskflow-worker describe: print the TaskTemplate of the handlers; see its --help.",
    )
    parser.add_argument("--app", help="Celery application whose tasks to serve, module:attribute (TASKFLOW_WORKER_APP)")
    parser.add_argument("--once", action="store_true", help="run the attempt that TASKFLOW_WORKER_ONCE names, then end")
    parsed = vars(parser.parse_args(arguments))
    once: bool = parsed.pop("once")
    given = {name: value for name, value in parsed.items() if value is not None}
    try:
        logs = LogSettings()
        # Descriptors 1 and 2 belong to the handlers while they run. The worker's own log keeps this one.
        setup_logging(logs, "worker", own_stdout())
        own_logging.set_apart()
        settings = WorkerSettings(**given)
        all_settings = (settings, RedisSettings(), StorageSettings(), logs)
        if once and settings.once is None:
            print("taskflow-worker: --once needs TASKFLOW_WORKER_ONCE, which names the attempt", file=sys.stderr)
            return 2
        if settings.once is None and settings.pool_kind is PoolKind.THREADS:
            # Before handler modules are imported: their loggers may keep the streams that they find.
            PROCESS_OUTPUT.install()
        discover(settings.handlers)
        if settings.app is not None:
            adopt(settings.app, REGISTRY)
        own_logging.enable()
    except UNUSABLE as error:
        print(*explain(error), sep="\n", file=sys.stderr)
        return 2
    except Invalid as error:
        print(f"taskflow-worker: {error}", file=sys.stderr)
        return 2
    if (why := reach_redis(all_settings[1], settings.name)) is not None:
        # The last words of the container: the pool, and the Tasks that wait for it, show them.
        print(f"taskflow-worker: {why}", file=sys.stderr)
        return 1
    # The variable decides: the pool's own command may drop the argument, and this pod must not serve a queue.
    if settings.once is not None:
        return OnceWorker(settings.once, *all_settings).run()
    return Worker(*all_settings).run()


if __name__ == "__main__":
    sys.exit(main())
