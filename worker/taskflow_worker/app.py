from __future__ import annotations

import os
import secrets
import signal
import threading
import time
from collections.abc import Mapping
from typing import Any

from billiard.exceptions import WorkerLostError
from celery import Celery, signals
from celery.worker import state
from celery.worker.request import Request
from pydantic import ValidationError

from taskflow_core.broker.app import make_app
from taskflow_core.domain import naming
from taskflow_core.domain.message import Message
from taskflow_core.domain.slots import PoolKind
from taskflow_core.ledger.connect import connect_sync
from taskflow_core.ledger.presence import Presence
from taskflow_core.ledger.worker import Heartbeat, WorkerLedger
from taskflow_core.settings import LogSettings, RedisSettings, StorageSettings
from taskflow_core.telemetry.logs import get_logger
from taskflow_worker.board import Board
from taskflow_worker.enforcing import Enforcer
from taskflow_worker.holdings import Holdings
from taskflow_worker.output import Output
from taskflow_worker.pool import Pool
from taskflow_worker.prefork import Prefork
from taskflow_worker.presence import Attendant, Load
from taskflow_worker.registry import REGISTRY
from taskflow_worker.runner import Tools
from taskflow_worker.settings import WorkerSettings
from taskflow_worker.threads import Threads

log = get_logger(__name__)
RENEWALS_PER_LEASE = 3
_LOOK_SECONDS = 0.2


class Worker:
    """One worker: Celery's application, our one Celery task, the leases, and what happens on SIGTERM.

    SIGTERM is Celery's warm shutdown: no new message, running handlers go on. After `drain_seconds`, or when none runs any more
    but in threads that were given up, what still runs is handed back and the worker ends.
    """

    def __init__(
        self, settings: WorkerSettings, redis: RedisSettings, storage: StorageSettings, logs: LogSettings
    ) -> None:
        self._settings = settings
        self._redis = redis
        self._storage = storage
        self._logs = logs
        self._identity = f"{settings.name}:{secrets.token_hex(4)}"
        self._board = Board(settings.concurrency)
        ledger = self._new_ledger()
        self.holdings = Holdings(
            ledger,
            settings.lease_seconds / RENEWALS_PER_LEASE,
            lambda request: request in state.active_requests,
            self._hear,
            lambda holding: self._board.find(holding.runner, holding.member) is not None,
        )
        self._pool = self._make_pool()
        self._enforcer = Enforcer(self.holdings, self._board, ledger, self._pool, settings.stop_grace_seconds)
        self._attendant = Attendant(self._new_presence(), self._load)
        self.app = self._make_celery()

    def run(self) -> int:
        """Serve the queues until told to stop; the exit code."""
        queues = [naming.broker_queue(self._settings.namespace, queue) for queue in self._settings.queues]
        log.info("worker_starting", worker=self._identity, queues=queues, handlers=REGISTRY.names)
        arguments = [
            "worker",
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
            return self._pool.ended(stop.code if isinstance(stop.code, int) else 1)
        return self._pool.ended(0)

    def execute(self, payload: Mapping[str, Any]) -> None:
        """One delivery, in a process or a thread of the pool: claim, run, finish."""
        try:
            message = Message.model_validate(payload)
        except ValidationError as error:
            log.error("message_invalid", error=str(error))  # noqa: TRY400 - the trace says nothing more
            return
        self._pool.runner().execute(message)

    def _hear(self, answer: Heartbeat) -> None:
        self._enforcer.hear(answer)

    def _new_ledger(self) -> WorkerLedger:
        return WorkerLedger(connect_sync(self._redis), self._identity, self._settings.lease_seconds * 1000)

    def _make_pool(self) -> Pool:
        its = self._settings

        def make(output: Output) -> Tools:
            runners = its.concurrency if its.pool_kind is PoolKind.THREADS else 1
            return Tools.make(self._new_ledger(), self._storage, its, self._logs, output, runners)

        def stop() -> None:
            os.kill(os.getpid(), signal.SIGTERM)

        if its.pool_kind is PoolKind.THREADS:
            return Threads(self._board, make, its.thread_return_seconds, stop)
        return Prefork(self._board, make)

    def _new_presence(self) -> Presence:
        its = self._settings
        return Presence(connect_sync(self._redis), its.name, its.namespace, its.queues, its.concurrency, pool=its.pool)

    def _load(self) -> Load:
        reserved, active = len(state.reserved_requests), len(state.active_requests)
        # When Celery loses the broker, it forgets what a pool process took but has not acknowledged: the board shows it.
        return Load(busy=max(reserved, active, self._board.occupied()), waiting=max(reserved - active, 0))

    def _make_celery(self) -> Celery:
        app = make_app(self._redis, namespace=self._settings.namespace)
        app.conf.worker_pool = self._pool.celery
        holdings, attendant = self.holdings, self._attendant

        class HeldRequest(Request):  # type: ignore[misc]
            """Tells the main process which runner runs what."""

            def on_accepted(self, pid: int, time_accepted: float) -> None:
                attendant.accepted()
                # First it counts as active: what does not is dropped at the next heartbeat, which may come in between.
                super().on_accepted(pid, time_accepted)
                holdings.accepted(self, self.id, pid, _token(self.args))

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
            threading.Thread(target=self._drain, name="drain", daemon=True).start()

        def on_stopped(**_: Any) -> None:
            self._attendant.stop()
            self._enforcer.stop()
            self.holdings.stop()

        # Strong references: Celery's signals keep weak ones by default.
        signals.setup_logging.connect(on_logging, weak=False)
        signals.worker_ready.connect(on_ready, weak=False)
        signals.worker_shutting_down.connect(on_stopping, weak=False)
        signals.worker_shutdown.connect(on_stopped, weak=False)

    def _drain(self) -> None:
        deadline = time.monotonic() + self._settings.drain_seconds
        while time.monotonic() < deadline:
            time.sleep(min(_LOOK_SECONDS, max(deadline - time.monotonic(), 0)))
            lost = self._pool.lost()
            if lost and self._board.occupied() <= lost:
                break
        self._give_up()

    def _give_up(self) -> None:
        count = self.holdings.hand_back()
        log.info("worker_gave_up", handed_back=count)
        # Celery tells nobody of a cold shutdown.
        self._attendant.stop()
        self._pool.leave()


def _token(arguments: Any) -> str:
    """The attempt's token, from the arguments of the Celery message; empty for one that is not ours."""
    try:
        return str(arguments[0]["token"])
    except (LookupError, TypeError):
        return ""
