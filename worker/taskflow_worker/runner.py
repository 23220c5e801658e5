from __future__ import annotations

import logging
import time
from dataclasses import dataclass

from structlog.contextvars import bound_contextvars

from taskflow_core.blobs.store import ObjectStore
from taskflow_core.domain.events import EventKind, Failure
from taskflow_core.domain.message import Message
from taskflow_core.errors import Unavailable
from taskflow_core.ledger.worker import Claim, Outcome, WorkerLedger
from taskflow_core.settings import LogSettings, StorageSettings
from taskflow_core.telemetry.logs import get_logger, trace_id
from taskflow_worker.attempt_log import LOG_CONTENT_TYPE
from taskflow_worker.board import Slot
from taskflow_worker.chunk import run_chunk
from taskflow_worker.enforcing import kind_of
from taskflow_worker.execution import patiently, run_attempt
from taskflow_worker.items import ItemReader
from taskflow_worker.log_shipping import LogShipper
from taskflow_worker.output import Output
from taskflow_worker.progress import Reporter
from taskflow_worker.registry import REGISTRY
from taskflow_worker.settings import WorkerSettings
from taskflow_worker.stopping import SlotStop

log = get_logger(__name__)
_LOG_CONNECT_SECONDS = 2
_LOG_READ_SECONDS = 5


@dataclass(frozen=True)
class Tools:
    """What the runners of one process share. Not to be carried over a fork: it holds connections."""

    ledger: WorkerLedger
    objects: ObjectStore
    shipper: LogShipper
    patience: float
    """Seconds to wait for a Redis or an object store that does not answer."""
    log_level: int

    @classmethod
    def make(
        cls,
        ledger: WorkerLedger,
        storage: StorageSettings,
        settings: WorkerSettings,
        logs: LogSettings,
        output: Output,
        runners: int,
    ) -> Tools:
        """For so many runners at a time, whose handlers are heard by that output."""
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


class Runner:
    """Runs one attempt after the other: in a process of the pool, or in a thread of it.

    Args:
        ident: of that process or thread, see `Holding.runner`.
        slot: of its own.
        tools: shared with the other runners of its process.
    """

    def __init__(self, ident: int, slot: Slot, tools: Tools) -> None:
        self.ident = ident
        self._slot = slot
        self._ledger = tools.ledger
        self._objects = tools.objects
        self._shipper = tools.shipper
        self._patience = tools.patience
        self._log_level = tools.log_level
        self._items = ItemReader()

    def execute(self, message: Message) -> None:
        """One delivery: claim, run, finish."""
        fields = {"task": f"{message.namespace}/{message.name}", "uid": message.uid, "attempt": message.attempt}
        if (trace := trace_id(message.traceparent)) is not None:
            fields["trace_id"] = trace
        with bound_contextvars(**fields):
            candidate = self._ledger.candidate(message, self.ident)
            claim = patiently(lambda: self._ledger.claim(candidate), what="claim", seconds=self._patience)
            if claim is None:
                log.info("delivery_refused")
                return
            timeout = message.attempt_timeout_seconds
            self._slot.begin(self.ident, message.member, time.monotonic() + timeout if timeout else None)
            try:
                self._run(claim)
            finally:
                self._slot.end(message.member)

    def _run(self, claim: Claim) -> None:
        message = claim.message
        log.info("attempt_started", handler=message.handler)
        reporter = Reporter(lambda advance: self._ledger.advance(claim, advance))
        with self._shipper.shipping(message, self._log_level):
            outcome = self._outcome(message, reporter)
        self._tell_the_rest(claim, reporter)
        kind = kind_of(outcome.reason) if isinstance(outcome, Failure) else EventKind.SUCCEEDED
        counted = patiently(lambda: self._ledger.finish(claim, kind, outcome), what="finish", seconds=self._patience)
        log.info(
            "attempt_ended",
            kind=kind,
            run_ms=outcome.run_ms,
            counted=counted,
            reason=outcome.reason if isinstance(outcome, Failure) else None,
        )

    def _outcome(self, message: Message, reporter: Reporter) -> Outcome:
        stop = SlotStop(self._slot, message.member)
        if message.chunk is not None:
            return run_chunk(
                message, message.chunk, REGISTRY, self._objects, self._items, patience=self._patience, stop=stop
            )
        return run_attempt(message, REGISTRY, self._objects, patience=self._patience, stop=stop, tell=reporter.tell)

    def _tell_the_rest(self, claim: Claim, reporter: Reporter) -> None:
        advance = reporter.close()
        if advance is None:
            return
        try:
            patiently(lambda: self._ledger.advance(claim, advance), what="progress", seconds=self._patience)
        except Unavailable as error:
            log.warning("progress_lost", error=str(error))
