from __future__ import annotations

import os
import secrets
import signal
import threading
from collections.abc import Mapping
from typing import Any

from billiard.exceptions import WorkerLostError
from celery import Celery, signals
from celery.worker import state
from celery.worker.request import Request
from pydantic import ValidationError

from taskflow_core.blobs.store import ObjectStore
from taskflow_core.broker.app import make_app
from taskflow_core.domain import naming
from taskflow_core.domain.events import Kind, Success
from taskflow_core.domain.message import Message
from taskflow_core.ledger.connect import connect_sync
from taskflow_core.ledger.worker import WorkerLedger
from taskflow_core.settings import LogSettings, RedisSettings, StorageSettings
from taskflow_core.telemetry.logs import get_logger, setup_logging
from taskflow_worker.execution import patiently, run_attempt
from taskflow_worker.holdings import Holdings
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
        self._ledger: tuple[int, WorkerLedger] | None = None
        self.holdings = Holdings(
            self._new_ledger(),
            settings.lease_seconds / RENEWALS_PER_LEASE,
            lambda request: request in state.active_requests,
        )
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
        ledger = self._process_ledger()
        patience = self._settings.patience_seconds
        candidate = ledger.candidate(message, os.getpid())
        claim = patiently(lambda: ledger.claim(candidate), what="claim", seconds=patience)
        bound = log.bind(task=f"{message.namespace}/{message.name}", uid=message.uid, attempt=message.attempt)
        if claim is None:
            bound.info("delivery_refused")
            return
        bound.info("attempt_started", handler=message.handler)
        outcome = run_attempt(message, REGISTRY, ObjectStore(self._storage), patience=patience)
        kind = Kind.SUCCEEDED if isinstance(outcome, Success) else Kind.FAILED
        counted = patiently(lambda: ledger.finish(claim, kind, outcome), what="finish", seconds=patience)
        bound.info(
            "attempt_ended",
            kind=kind,
            run_ms=outcome.run_ms,
            counted=counted,
            reason=None if isinstance(outcome, Success) else outcome.reason,
        )

    def _new_ledger(self) -> WorkerLedger:
        return WorkerLedger(connect_sync(self._redis), self._identity, self._settings.lease_seconds * 1000)

    def _process_ledger(self) -> WorkerLedger:
        # A connection must not cross a fork: each pool process opens its own at its first task.
        pid = os.getpid()
        if self._ledger is None or self._ledger[0] != pid:
            self._ledger = (pid, self._new_ledger())
        return self._ledger[1]

    def _make_celery(self) -> Celery:
        app = make_app(self._redis)
        holdings = self.holdings

        class HeldRequest(Request):  # type: ignore[misc]
            """Tells the main process which pool process runs what."""

            def on_accepted(self, pid: int, time_accepted: float) -> None:
                holdings.accepted(self, self.id, pid)
                super().on_accepted(pid, time_accepted)

            def on_failure(self, exc_info: Any, *args: Any, **kwargs: Any) -> Any:
                # billiard wraps what it sends through its pipe, and hands over bare what it notices itself.
                error = getattr(exc_info.exception, "exc", exc_info.exception)
                if isinstance(error, WorkerLostError):
                    holdings.process_died(self, f"the process that ran the handler died: {error}")
                return super().on_failure(exc_info, *args, **kwargs)

        run = app.task(self.execute, name=naming.CELERY_TASK, acks_late=True, ignore_result=True)
        run.Request = HeldRequest
        self._connect_signals()
        return app

    def _connect_signals(self) -> None:
        def on_logging(**_: Any) -> None:
            setup_logging(self._logs, "worker")

        def on_ready(**_: Any) -> None:
            self.holdings.start()
            log.info("worker_ready", worker=self._identity)

        def on_stopping(**_: Any) -> None:
            log.info("worker_draining", seconds=self._settings.drain_seconds)
            timer = threading.Timer(self._settings.drain_seconds, self._give_up)
            timer.daemon = True
            timer.start()

        def on_stopped(**_: Any) -> None:
            self.holdings.stop()

        # Strong references: Celery's signals keep weak ones by default.
        signals.setup_logging.connect(on_logging, weak=False)
        signals.worker_ready.connect(on_ready, weak=False)
        signals.worker_shutting_down.connect(on_stopping, weak=False)
        signals.worker_shutdown.connect(on_stopped, weak=False)

    def _give_up(self) -> None:
        count = self.holdings.hand_back()
        log.info("worker_gave_up", handed_back=count)
        os.kill(os.getpid(), signal.SIGQUIT)
