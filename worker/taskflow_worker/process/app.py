"""The worker program: Celery's application with our one Celery task, the leases, and the shutdown on SIGTERM."""

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
from celery.exceptions import Reject
from celery.worker import state
from celery.worker.request import Request
from pydantic import ValidationError

from taskflow_core.broker.app import make_app
from taskflow_core.domain import naming
from taskflow_core.domain.attempts import RENEWALS_PER_LEASE
from taskflow_core.domain.message import Message
from taskflow_core.domain.slots import PoolKind
from taskflow_core.errors import Unavailable
from taskflow_core.ledger.connect import connect_sync
from taskflow_core.ledger.presence import Presence
from taskflow_core.ledger.worker import Heartbeat, WorkerLedger
from taskflow_core.settings import LogSettings, RedisSettings, StorageSettings
from taskflow_core.telemetry.logs import get_logger
from taskflow_worker.output.capture import OutputCapture
from taskflow_worker.process.leases import Leases
from taskflow_worker.process.pool import Pool
from taskflow_worker.process.prefork import Prefork
from taskflow_worker.process.presence import Load, PresenceReporter
from taskflow_worker.process.runner import RunnerResources, Unclaimed, worker_error
from taskflow_worker.process.shared_slots import SharedSlots
from taskflow_worker.process.termination import Terminator
from taskflow_worker.process.threads import Threads
from taskflow_worker.sdk.registry import REGISTRY
from taskflow_worker.settings import WorkerSettings

log = get_logger(__name__)
_DRAIN_POLL_SECONDS = 0.2
_HAND_BACK_SECONDS = 1.0


class Worker:
    """One worker that serves queues until it is told to stop.

    SIGTERM starts Celery's warm shutdown: no new messages, running handlers continue. After `drain_seconds`, or when
    only threads that were given up still run, the worker gives up the remaining attempts and ends.
    """

    def __init__(
        self, settings: WorkerSettings, redis: RedisSettings, storage: StorageSettings, logs: LogSettings
    ) -> None:
        self._settings = settings
        self._redis = redis
        self._storage = storage
        self._logs = logs
        self._identity = f"{settings.name}:{secrets.token_hex(4)}"
        self._slots = SharedSlots(settings.concurrency)
        ledger = self._new_ledger()
        self.leases = Leases(
            ledger,
            settings.lease_seconds / RENEWALS_PER_LEASE,
            lambda request: request in state.active_requests,
            self._on_heartbeat,
            lambda holding: self._slots.find(holding.runner, holding.member) is not None,
        )
        self._pool = self._make_pool()
        self._terminator = Terminator(self.leases, self._slots, ledger, self._pool, settings.stop_grace_seconds)
        self._presence = PresenceReporter(self._new_presence(), self._load)
        self.app = self._make_celery()

    def run(self) -> int:
        """Serve the queues until told to stop. Returns the exit code."""
        queues = [naming.broker_queue(self._settings.namespace, queue) for queue in self._settings.queues]
        log.info("worker_starting", worker=self._identity, queues=queues, handlers=REGISTRY.names)
        arguments = [
            # Without Celery's banner: every line of the log is of one format.
            "--quiet",
            "worker",
            f"--concurrency={self._settings.concurrency}",
            f"--queues={','.join(queues)}",
            f"--hostname={self._identity.replace(':', '-')}@%h",
            "--without-gossip",
            "--without-mingle",
            "--without-heartbeat",
            f"--loglevel={self._logs.level}",
        ]
        self._pool.prepare()
        try:
            self.app.worker_main(arguments)
        except SystemExit as stop:
            return self._pool.finish(stop.code if isinstance(stop.code, int) else 1)
        return self._pool.finish(0)

    def execute(self, payload: Mapping[str, Any]) -> None:
        """Run one delivery in a process or a thread of the pool."""
        try:
            message = Message.model_validate(payload)
        except ValidationError as error:
            log.error("message_invalid", error=str(error))  # noqa: TRY400 - the trace says nothing more
            return
        try:
            try:
                runner = self._pool.runner()
            except Exception as error:
                raise Unclaimed(worker_error(error).message) from error
            runner.execute(message)
        except Unclaimed as error:
            log.exception("delivery_handed_back", uid=message.uid, attempt=message.attempt)
            self._runner_broke(error.__cause__ or error)
            # If this is so in each runner, the message must not go round and round without a pause.
            time.sleep(_HAND_BACK_SECONDS)
            raise Reject(str(error), requeue=True) from error
        except Exception as error:
            self._runner_broke(error)
            raise

    def _runner_broke(self, error: BaseException) -> None:
        # An outage of Redis is no reason to restart the whole worker. A process is replaced for it too: it may be that
        # it has no descriptor for a connection.
        if self._settings.pool_kind is PoolKind.PREFORK or not isinstance(error, Unavailable):
            self._pool.broken(worker_error(error).message)

    def _on_heartbeat(self, answer: Heartbeat) -> None:
        self._terminator.on_heartbeat(answer)
        self._pool.tend()

    def _new_ledger(self) -> WorkerLedger:
        return WorkerLedger(
            connect_sync(self._redis), self._settings.namespace, self._identity, self._settings.lease_seconds * 1000
        )

    def _make_pool(self) -> Pool:
        settings = self._settings

        def make(output: OutputCapture) -> RunnerResources:
            runners = settings.concurrency if settings.pool_kind is PoolKind.THREADS else 1
            return RunnerResources.make(self._new_ledger(), self._storage, settings, self._logs, output, runners)

        def stop() -> None:
            os.kill(os.getpid(), signal.SIGTERM)

        if settings.pool_kind is PoolKind.THREADS:
            return Threads(self._slots, make, settings.thread_return_seconds, stop)
        return Prefork(self._slots, make)

    def _new_presence(self) -> Presence:
        settings = self._settings
        return Presence(
            connect_sync(self._redis),
            settings.name,
            settings.namespace,
            settings.queues,
            settings.concurrency,
            pool=settings.pool,
        )

    def _load(self) -> Load:
        reserved, active = len(state.reserved_requests), len(state.active_requests)
        # When Celery loses the broker, it forgets what a pool process runs without acknowledgement. The slots still
        # show it.
        return Load(busy=max(reserved, active, self._slots.occupied()), waiting=max(reserved - active, 0))

    def _make_celery(self) -> Celery:
        app = make_app(self._redis, namespace=self._settings.namespace)
        app.conf.worker_pool = self._pool.celery_pool
        leases, presence, pool = self.leases, self._presence, self._pool

        class LeasedRequest(Request):  # type: ignore[misc]
            """Tells the main process which runner runs which attempt."""

            def on_accepted(self, pid: int, time_accepted: float) -> None:
                presence.accepted()
                # Celery must count it as active first: a heartbeat in between would drop an attempt that is not.
                super().on_accepted(pid, time_accepted)
                leases.accepted(self, self.id, pid, _token(self.args))

            def on_failure(self, exc_info: Any, *args: Any, **kwargs: Any) -> Any:
                # billiard wraps an error that comes through its pipe, but not one that it detects itself.
                error = getattr(exc_info.exception, "exc", exc_info.exception)
                if isinstance(error, WorkerLostError):
                    leases.process_died(self, f"the process that ran the handler died: {error}")
                    threading.Thread(target=pool.tend, name="orphans", daemon=True).start()
                elif not isinstance(error, Reject):
                    # The runner could not even report it.
                    leases.failed(self, worker_error(error))
                return super().on_failure(exc_info, *args, **kwargs)

        # Not shared: a Celery application that is served here too must not get this task.
        run = app.task(self.execute, name=naming.CELERY_TASK, acks_late=True, ignore_result=True, shared=False)
        run.Request = LeasedRequest
        presence.install(app)
        self._connect_signals()
        return app

    def _connect_signals(self) -> None:
        def on_logging(**_: Any) -> None:
            """Logging is configured already. A receiver of this signal keeps Celery from configuring it."""

        def on_ready(**_: Any) -> None:
            self.leases.start()
            self._terminator.start()
            self._presence.start()
            log.info("worker_ready", worker=self._identity)

        def on_stopping(**_: Any) -> None:
            log.info("worker_draining", seconds=self._settings.drain_seconds)
            self._presence.shut_intake()
            threading.Thread(target=self._drain, name="drain", daemon=True).start()

        def on_stopped(**_: Any) -> None:
            self._presence.stop()
            self._terminator.stop()
            self.leases.stop()

        # Strong references: Celery's signals keep weak ones by default.
        signals.setup_logging.connect(on_logging, weak=False)
        signals.worker_ready.connect(on_ready, weak=False)
        signals.worker_shutting_down.connect(on_stopping, weak=False)
        signals.worker_shutdown.connect(on_stopped, weak=False)

    def _drain(self) -> None:
        deadline = time.monotonic() + self._settings.drain_seconds
        while time.monotonic() < deadline:
            time.sleep(min(_DRAIN_POLL_SECONDS, max(deadline - time.monotonic(), 0)))
            given_up = self._pool.given_up()
            if given_up and self._slots.occupied() <= given_up:
                break
        self._give_up()

    def _give_up(self) -> None:
        count = self.leases.release_all()
        log.info("worker_gave_up", handed_back=count)
        # Celery sends no signal for a cold shutdown.
        self._presence.stop()
        self._pool.exit_now()


def _token(arguments: Any) -> str:
    """The attempt's token from the arguments of the Celery message. Empty for a message that is not ours."""
    try:
        return str(arguments[0]["token"])
    except (LookupError, TypeError):
        return ""
