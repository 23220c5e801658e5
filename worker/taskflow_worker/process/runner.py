"""Runs one attempt after the other in a process or a thread of the pool: claim, run, report the end to the ledger."""

from __future__ import annotations

import decimal
import logging
import time
from contextvars import copy_context
from dataclasses import dataclass

from structlog.contextvars import bound_contextvars

from taskflow_core.blobs.store import ObjectStore
from taskflow_core.domain.events import Advance, Failure
from taskflow_core.domain.message import Message
from taskflow_core.domain.phases import Reason
from taskflow_core.errors import Unavailable
from taskflow_core.ledger.worker import Claim, Outcome, WorkerLedger
from taskflow_core.settings import LogSettings, StorageSettings
from taskflow_core.telemetry.logs import get_logger, trace_id
from taskflow_worker.attempts.chunk import run_chunk
from taskflow_worker.attempts.execution import run_attempt
from taskflow_worker.attempts.items import ItemReader
from taskflow_worker.attempts.progress import ProgressReporter
from taskflow_worker.attempts.retrying import retry_while_unavailable
from taskflow_worker.output.attempt_log import LOG_CONTENT_TYPE
from taskflow_worker.output.capture import OutputCapture
from taskflow_worker.output.log_shipping import LogShipper
from taskflow_worker.process.housekeeping import Housekeeping
from taskflow_worker.process.shared_slots import Slot
from taskflow_worker.process.slot_stop import SlotStop
from taskflow_worker.process.stop_rules import kind_of
from taskflow_worker.sdk.failures import AttemptFailed, message_of, type_name
from taskflow_worker.sdk.forks import same_process
from taskflow_worker.sdk.registry import REGISTRY
from taskflow_worker.settings import WorkerSettings

log = get_logger(__name__)
_LOG_CONNECT_SECONDS = 2
_LOG_READ_SECONDS = 5


@dataclass(frozen=True)
class RunnerResources:
    """What the runners of one process share. It holds connections, so it must not cross a fork."""

    ledger: WorkerLedger
    objects: ObjectStore
    shipper: LogShipper
    patience: float
    """Seconds to wait for a Redis or an object store that is unavailable."""
    log_level: int

    @classmethod
    def make(
        cls,
        ledger: WorkerLedger,
        storage: StorageSettings,
        settings: WorkerSettings,
        logs: LogSettings,
        output: OutputCapture,
        runners: int,
    ) -> RunnerResources:
        """Build the resources for this many runners, whose handlers' output is captured by `output`."""
        store = ObjectStore(
            storage, connect_seconds=_LOG_CONNECT_SECONDS, read_seconds=_LOG_READ_SECONDS, connections=runners + 1
        )
        return cls(
            ledger=ledger,
            objects=ObjectStore(storage, connections=runners),
            shipper=LogShipper(
                output, lambda key, content: store.put_bytes(key, content, LOG_CONTENT_TYPE), settings.log_limit_bytes
            ),
            patience=settings.patience_seconds,
            log_level=logging.getLevelNamesMapping()[logs.level],
        )


class Unclaimed(Exception):  # noqa: N818 - a state of the delivery
    """The worker failed before it claimed the attempt: nothing has begun, and another runner can take the message."""


class Runner:
    """Runs attempts, one at a time.

    Args:
        ident: of the process or thread; see `Holding.runner`.
        slot: used by this runner and the main process.
        resources: shared with the other runners of the process.
        housekeeping: cleans up after each attempt.
    """

    def __init__(self, ident: int, slot: Slot, resources: RunnerResources, housekeeping: Housekeeping) -> None:
        self.ident = ident
        self._housekeeping = housekeeping
        self._slot = slot
        self._ledger = resources.ledger
        self._objects = resources.objects
        self._shipper = resources.shipper
        self._patience = resources.patience
        self._log_level = resources.log_level
        self._items = ItemReader()

    def execute(self, message: Message) -> None:
        """Process one delivery: claim the attempt, run it, report its end.

        Raises:
            Unclaimed: the attempt could not be claimed, and was not refused.
            Unavailable: its end could not be reported.
        """
        fields = {"task": f"{message.namespace}/{message.name}", "uid": message.uid, "attempt": message.attempt}
        if (trace := trace_id(message.traceparent)) is not None:
            fields["trace_id"] = trace
        with bound_contextvars(**fields):
            claim = self._claim(message)
            if claim is None:
                log.info("delivery_refused")
                return
            timeout = message.attempt_timeout_seconds
            self._slot.begin(self.ident, message.member, time.monotonic() + timeout if timeout else None)
            try:
                self._run(claim)
            finally:
                self._slot.end(message.member)

    def _claim(self, message: Message) -> Claim | None:
        try:
            candidate = self._ledger.candidate(message, self.ident)
            return retry_while_unavailable(lambda: self._ledger.claim(candidate), what="claim", seconds=self._patience)
        except Exception as error:
            raise Unclaimed(worker_error(error).message) from error

    def _run(self, claim: Claim) -> None:
        message = claim.message
        log.info("attempt_started", handler=message.handler)
        reporter = ProgressReporter(lambda advance: self._ledger.advance(claim, advance))
        outcome: Outcome | None = None
        unsent: Advance | None = None
        try:
            with self._shipper.shipping(message, self._log_level), self._housekeeping.around(_package(message)):
                try:
                    with same_process():
                        outcome = copy_context().run(self._outcome, message, reporter)
                finally:
                    unsent = reporter.close()
        except Exception as error:
            # Nothing of the handler comes here. If it has ended, its outcome stands.
            log.exception("attempt_broken")
            failure = worker_error(error)
            self._housekeeping.broken(failure.message)
            outcome = outcome or failure
        self._send_last_progress(claim, unsent)
        kind = kind_of(outcome)
        counted = retry_while_unavailable(
            lambda: self._ledger.finish(claim, kind, outcome), what="finish", seconds=self._patience
        )
        log.info(
            "attempt_ended",
            kind=kind,
            run_ms=outcome.run_ms,
            counted=counted,
            reason=outcome.reason if isinstance(outcome, Failure) else None,
        )

    def _outcome(self, message: Message, reporter: ProgressReporter) -> Outcome:
        # Of this attempt's own: `getcontext` returns an object that can be changed.
        decimal.setcontext(decimal.getcontext().copy())
        stop = SlotStop(self._slot, message.member)
        if message.chunk is not None:
            return run_chunk(
                message, message.chunk, REGISTRY, self._objects, self._items, patience=self._patience, stop=stop
            )
        return run_attempt(message, REGISTRY, self._objects, patience=self._patience, stop=stop, report=reporter.report)

    def _send_last_progress(self, claim: Claim, advance: Advance | None) -> None:
        if advance is None:
            return
        try:
            retry_while_unavailable(
                lambda: self._ledger.advance(claim, advance), what="progress", seconds=self._patience
            )
        except Unavailable as error:
            log.warning("progress_lost", error=str(error))


def worker_error(error: BaseException) -> Failure:
    """The end of an attempt whose worker failed outside of the handler."""
    message = f"the worker failed outside of the handler: {type_name(error)}: {message_of(error)}"
    return AttemptFailed(Reason.WORKER_ERROR, message, type_name(error)).failure


def _package(message: Message) -> str:
    """Top-level package of the handler. Empty if there is no such handler."""
    try:
        handler = REGISTRY.find(message.handler)
    except AttemptFailed:
        return ""
    # The last word, because a location may begin with a description.
    return handler.location.rpartition(" ")[2].partition(".")[0]
