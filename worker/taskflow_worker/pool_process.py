from __future__ import annotations

import logging
import os
import time
from contextlib import suppress

from structlog.contextvars import bound_contextvars

from taskflow_core.blobs.store import ObjectStore
from taskflow_core.domain.events import Failure, Kind
from taskflow_core.domain.message import Message
from taskflow_core.errors import Unavailable
from taskflow_core.ledger.worker import Claim, Outcome, WorkerLedger
from taskflow_core.settings import StorageSettings
from taskflow_core.telemetry.logs import get_logger, trace_id
from taskflow_worker.attempt_log import LOG_CONTENT_TYPE
from taskflow_worker.board import Slot
from taskflow_worker.chunk import run_chunk
from taskflow_worker.enforcing import kind_of
from taskflow_worker.execution import patiently, run_attempt
from taskflow_worker.items import ItemReader
from taskflow_worker.log_shipping import LogShipper
from taskflow_worker.output import Descriptors, Output
from taskflow_worker.progress import Reporter
from taskflow_worker.registry import REGISTRY
from taskflow_worker.settings import WorkerSettings
from taskflow_worker.stopping import SlotStop

log = get_logger(__name__)
_LOG_CONNECT_SECONDS = 2
_LOG_READ_SECONDS = 5


class PoolProcess:
    """A process of the pool, which runs one attempt after the other. Made in that process, at its first attempt."""

    def __init__(
        self, ledger: WorkerLedger, storage: StorageSettings, settings: WorkerSettings, log_level: str, slot: Slot
    ) -> None:
        self.pid = os.getpid()
        self._ledger = ledger
        self._patience = settings.patience_seconds
        self._log_level = logging.getLevelNamesMapping()[log_level]
        self._slot = slot
        self._objects = ObjectStore(storage)
        self._items = ItemReader()
        logs = ObjectStore(storage, connect_seconds=_LOG_CONNECT_SECONDS, read_seconds=_LOG_READ_SECONDS)
        self._shipper = LogShipper(
            Output(Descriptors()),
            lambda key, content: logs.put_bytes(key, content, LOG_CONTENT_TYPE),
            settings.log_limit_bytes,
        )
        # A group of its own, so that a kill takes the programs with it that a handler started.
        with suppress(PermissionError):
            os.setpgid(0, 0)

    def execute(self, message: Message) -> None:
        """One delivery: claim, run, finish."""
        fields = {"task": f"{message.namespace}/{message.name}", "uid": message.uid, "attempt": message.attempt}
        if (trace := trace_id(message.traceparent)) is not None:
            fields["trace_id"] = trace
        with bound_contextvars(**fields):
            candidate = self._ledger.candidate(message, self.pid)
            claim = patiently(lambda: self._ledger.claim(candidate), what="claim", seconds=self._patience)
            if claim is None:
                log.info("delivery_refused")
                return
            timeout = message.attempt_timeout_seconds
            self._slot.begin(self.pid, message.member, time.monotonic() + timeout if timeout else None)
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
        kind = kind_of(outcome.reason) if isinstance(outcome, Failure) else Kind.SUCCEEDED
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
