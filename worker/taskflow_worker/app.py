from __future__ import annotations

import os
import secrets
import signal
import threading
from collections.abc import Mapping
from typing import Any

from billiard import current_process
from billiard.exceptions import WorkerLostError
from celery import Celery, signals
from celery.worker import state
from celery.worker.request import Request
from pydantic import ValidationError

from taskflow_core.broker.app import make_app
from taskflow_core.domain import naming
from taskflow_core.domain.message import Message
from taskflow_core.ledger.connect import connect_sync
from taskflow_core.ledger.presence import Presence
from taskflow_core.ledger.worker import Heartbeat, WorkerLedger
from taskflow_core.settings import LogSettings, RedisSettings, StorageSettings
from taskflow_core.telemetry.logs import get_logger
from taskflow_worker.board import Board
from taskflow_worker.enforcing import Enforcer
from taskflow_worker.holdings import Holdings
from taskflow_worker.pool_process import PoolProcess
from taskflow_worker.presence import Attendant, Load
from taskflow_worker.registry import REGISTRY
from taskflow_worker.settings import WorkerSettings

log = get_logger(__name__)
RENEWALS_PER_LEASE = 3


class Worker:
    """One worker: Celery's application, our one Celery task, the leases, and what happens on SIGTERM.

    SIGTERM is Celery's warm shutdown: no new message, running handlers go on. After `drain_seconds` what still runs is
    handed back and SIGQUIT ends the rest.
    """

    def __init__(
        self, settings: WorkerSettings, redis: RedisSettings, storage: StorageSettings, logs: LogSettings
    ) -> None:
        self._settings = settings
        self._redis = redis
        self._storage = storage
        self._logs = logs
        self._identity = f"{settings.name}:{secrets.token_hex(4)}"
        self._process: PoolProcess | None = None
        self._board = Board(settings.concurrency)
        ledger = self._new_ledger()
        self.holdings = Holdings(
            ledger,
            settings.lease_seconds / RENEWALS_PER_LEASE,
            lambda request: request in state.active_requests,
            self._hear,
            lambda holding: self._board.find(holding.pid, holding.member) is not None,
        )
        self._enforcer = Enforcer(self.holdings, self._board, ledger, settings.stop_grace_seconds)
        self._attendant = Attendant(self._new_presence(), self._load)
        self.app = self._make_celery()

    def run(self) -> int:
        """Serve the queues until told to stop; the exit code."""
        queues = [naming.broker_queue(self._settings.namespace, queue) for queue in self._settings.queues]
        log.info("worker_starting", worker=self._identity, queues=queues, handlers=REGISTRY.names)
        arguments = [
            "worker",
            "--pool=prefork",
            f"--concurrency={self._settings.concurrency}",
            f"--queues={','.join(queues)}",
            f"--hostname={self._identity.replace(':', '-')}@%h",
            "--without-gossip",
            "--without-mingle",
            "--without-heartbeat",
            f"--loglevel={self._logs.level}",
        ]
        try:
            self.app.worker_main(arguments)
        except SystemExit as stop:
            return stop.code if isinstance(stop.code, int) else 1
        return 0

    def execute(self, payload: Mapping[str, Any]) -> None:
        """One delivery, in a pool process: claim, run, finish."""
        try:
            message = Message.model_validate(payload)
        except ValidationError as error:
            log.error("message_invalid", error=str(error))  # noqa: TRY400 - the trace says nothing more
            return
        # A connection must not cross a fork: each pool process makes its own at its first task.
        if self._process is None or self._process.pid != os.getpid():
            slot = self._board.slot(current_process().index)
            self._process = PoolProcess(self._new_ledger(), self._storage, self._settings, self._logs.level, slot)
        self._process.execute(message)

    def _hear(self, answer: Heartbeat) -> None:
        self._enforcer.hear(answer)

    def _new_ledger(self) -> WorkerLedger:
        return WorkerLedger(connect_sync(self._redis), self._identity, self._settings.lease_seconds * 1000)

    def _new_presence(self) -> Presence:
        its = self._settings
        return Presence(connect_sync(self._redis), its.name, its.namespace, its.queues, its.concurrency, pool=its.pool)

    def _load(self) -> Load:
        reserved, active = len(state.reserved_requests), len(state.active_requests)
        # When Celery loses the broker, it forgets what a pool process took but has not acknowledged: the board shows it.
        return Load(busy=max(reserved, active, self._board.occupied()), waiting=max(reserved - active, 0))

    def _make_celery(self) -> Celery:
        app = make_app(self._redis, namespace=self._settings.namespace)
        holdings, attendant = self.holdings, self._attendant

        class HeldRequest(Request):  # type: ignore[misc]
            """Tells the main process which pool process runs what."""

            def on_accepted(self, pid: int, time_accepted: float) -> None:
                attendant.accepted()
                holdings.accepted(self, self.id, pid, _token(self.args))
                super().on_accepted(pid, time_accepted)

            def on_failure(self, exc_info: Any, *args: Any, **kwargs: Any) -> Any:
                # billiard wraps what it sends through its pipe, and hands over bare what it notices itself.
                error = getattr(exc_info.exception, "exc", exc_info.exception)
                if isinstance(error, WorkerLostError):
                    holdings.process_died(self, f"the process that ran the handler died: {error}")
                return super().on_failure(exc_info, *args, **kwargs)

        # Not shared: a Celery application that is served here too must not get it.
        run = app.task(self.execute, name=naming.CELERY_TASK, acks_late=True, ignore_result=True, shared=False)
        run.Request = HeldRequest
        attendant.watch(app)
        self._connect_signals()
        return app

    def _connect_signals(self) -> None:
        def on_logging(**_: Any) -> None:
            """Logging is set up already; a receiver of this signal keeps Celery from doing it."""

        def on_ready(**_: Any) -> None:
            self.holdings.start()
            self._enforcer.start()
            self._attendant.start()
            log.info("worker_ready", worker=self._identity)

        def on_stopping(**_: Any) -> None:
            log.info("worker_draining", seconds=self._settings.drain_seconds)
            self._attendant.take_no_more()
            timer = threading.Timer(self._settings.drain_seconds, self._give_up)
            timer.daemon = True
            timer.start()

        def on_stopped(**_: Any) -> None:
            self._attendant.stop()
            self._enforcer.stop()
            self.holdings.stop()

        # Strong references: Celery's signals keep weak ones by default.
        signals.setup_logging.connect(on_logging, weak=False)
        signals.worker_ready.connect(on_ready, weak=False)
        signals.worker_shutting_down.connect(on_stopping, weak=False)
        signals.worker_shutdown.connect(on_stopped, weak=False)

    def _give_up(self) -> None:
        count = self.holdings.hand_back()
        log.info("worker_gave_up", handed_back=count)
        # Celery tells nobody of a cold shutdown.
        self._attendant.stop()
        os.kill(os.getpid(), signal.SIGQUIT)


def _token(arguments: Any) -> str:
    """The attempt's token, from the arguments of the Celery message; empty for one that is not ours."""
    try:
        return str(arguments[0]["token"])
    except (LookupError, TypeError):
        return ""
