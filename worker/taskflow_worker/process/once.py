"""The worker of a pod that runs one attempt and ends. It serves no queue and uses no Celery."""

from __future__ import annotations

import multiprocessing
import secrets
import signal
import threading

from pydantic import ValidationError

from taskflow_core.domain.attempts import RENEWALS_PER_LEASE
from taskflow_core.domain.message import Message
from taskflow_core.errors import Unavailable
from taskflow_core.ledger.connect import connect_sync
from taskflow_core.ledger.worker import Heartbeat, WorkerLedger
from taskflow_core.settings import LogSettings, RedisSettings, StorageSettings
from taskflow_core.telemetry.logs import get_logger
from taskflow_worker.attempts.retrying import retry_while_unavailable
from taskflow_worker.output.capture import OutputCapture
from taskflow_worker.process.leases import Leases
from taskflow_worker.process.prefork import Prefork
from taskflow_worker.process.process_tree import kill_with_descendants
from taskflow_worker.process.runner import RunnerResources
from taskflow_worker.process.shared_slots import SharedSlots
from taskflow_worker.process.termination import Terminator
from taskflow_worker.settings import WorkerSettings

log = get_logger(__name__)
_EXIT_OK, _EXIT_FAILED = 0, 1


class OnceWorker:
    """The main process of one attempt: it renews the lease and handles stop requests. A child process runs the handler.

    The child is what a pool process is to a worker, so a kill and a crash have the same effects in both. The ledger has
    the outcome of the attempt; the exit code does not show it.

    Args:
        key: Redis key of the attempt's message.
        settings: the worker's settings.
        redis: ledger and messages.
        storage: inputs, outputs and logs.
        logs: the log level.
    """

    def __init__(
        self, key: str, settings: WorkerSettings, redis: RedisSettings, storage: StorageSettings, logs: LogSettings
    ) -> None:
        self._key = key
        self._settings = settings
        self._redis = redis
        self._storage = storage
        self._logs = logs
        self._identity = f"{settings.name}:{secrets.token_hex(4)}"
        self._slots = SharedSlots(1)
        self._stopping = False
        self._give_up_timer = threading.Timer(settings.drain_seconds, self._give_up)
        self._give_up_timer.daemon = True
        self._child: multiprocessing.context.ForkProcess | None = None
        self._ledger = self._new_ledger()
        interval = settings.lease_seconds / RENEWALS_PER_LEASE
        self._leases = Leases(self._ledger, interval, active=lambda _: True, on_heartbeat=self._on_heartbeat)
        self._pool = Prefork(self._slots, self._make_resources, index=lambda: 0)
        self._terminator = Terminator(self._leases, self._slots, self._ledger, self._pool, settings.stop_grace_seconds)

    def run(self) -> int:
        """Run the attempt. Returns 0 whatever its outcome, or 1 if it could not start or its end was not reported."""
        signal.signal(signal.SIGTERM, self._on_stopping)
        try:
            message = retry_while_unavailable(self._read, what="message", seconds=self._settings.patience_seconds)
        except (Unavailable, ValidationError) as error:
            log.error("message_unreadable", key=self._key, error=str(error))  # noqa: TRY400 - a trace says nothing more
            return _EXIT_FAILED
        if message is None or self._stopping:
            why = "stopped" if self._stopping else "there is no message"
            log.warning("attempt_not_begun", key=self._key, why=why)
            return _EXIT_FAILED
        return self._supervise(message)

    def _read(self) -> Message | None:
        # Otherwise the first heartbeat would take the unknown epoch for lost data.
        self._leases.learn_epoch()
        return self._ledger.left(self._key)

    def _supervise(self, message: Message) -> int:
        # Fork before any thread of ours starts: a lock that a thread holds during the fork stays locked in the child.
        self._pool.prepare()
        self._child = child = multiprocessing.get_context("fork").Process(target=self._execute, args=(message,))
        child.start()
        assert child.pid is not None, "it was started"  # noqa: S101 - a mistake of ours, not of a user
        self._leases.accepted(child, message.member, child.pid, message.token)
        self._leases.start()
        self._terminator.start()
        log.info("attempt_accompanied", worker=self._identity, member=message.member, pid=child.pid)
        child.join()
        code = child.exitcode or 0
        if code:
            # Does nothing if the end was reported before the child was killed.
            self._leases.process_died(child, f"the process that ran the handler died: {_describe_exit(code)}")
        self._terminator.stop()
        self._leases.stop()
        self._pool.finish(code)
        log.info("attempt_left", member=message.member, exit_code=code)
        return _EXIT_FAILED if code > 0 else _EXIT_OK

    def _execute(self, message: Message) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        self._pool.runner().execute(message)

    def _new_ledger(self) -> WorkerLedger:
        return WorkerLedger(
            connect_sync(self._redis), self._settings.namespace, self._identity, self._settings.lease_seconds * 1000
        )

    def _make_resources(self, output: OutputCapture) -> RunnerResources:
        return RunnerResources.make(self._new_ledger(), self._storage, self._settings, self._logs, output, runners=1)

    def _on_heartbeat(self, answer: Heartbeat) -> None:
        self._terminator.on_heartbeat(answer)

    def _on_stopping(self, *_: object) -> None:
        if self._stopping:
            return
        self._stopping = True
        self._give_up_timer.start()

    def _give_up(self) -> None:
        if self._child is None or self._child.pid is None:
            return
        log.info("worker_gave_up", handed_back=self._leases.release_all())
        kill_with_descendants(self._child.pid)


def _describe_exit(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"
