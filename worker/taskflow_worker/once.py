from __future__ import annotations

import multiprocessing
import os
import secrets
import signal
import threading
from contextlib import suppress

from pydantic import ValidationError

from taskflow_core.domain.message import Message
from taskflow_core.errors import Unavailable
from taskflow_core.ledger.connect import connect_sync
from taskflow_core.ledger.worker import Heartbeat, WorkerLedger
from taskflow_core.settings import LogSettings, RedisSettings, StorageSettings
from taskflow_core.telemetry.logs import get_logger
from taskflow_worker.app import RENEWALS_PER_LEASE
from taskflow_worker.board import Board
from taskflow_worker.enforcing import Enforcer
from taskflow_worker.execution import patiently
from taskflow_worker.holdings import Holdings
from taskflow_worker.output import Output
from taskflow_worker.prefork import Prefork
from taskflow_worker.runner import Tools
from taskflow_worker.settings import WorkerSettings

log = get_logger(__name__)
_DONE, _COULD_NOT = 0, 1


class Once:
    """One attempt in a pod of its own: this is the main process, which renews and enforces, and a child runs the handler.

    The child is to this process what a pool process is to a worker, so that a hard stop and a crash are the same here and there.
    What became of the attempt is in the ledger, and no exit code says it.

    Args:
        key: Redis key of the attempt's message.
        settings: of the worker.
        redis: ledger and messages.
        storage: inputs, outputs, logs.
        logs: level.
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
        self._board = Board(1)
        self._told = False
        self._give_up_timer = threading.Timer(settings.drain_seconds, self._give_up)
        self._give_up_timer.daemon = True
        self._child: multiprocessing.context.ForkProcess | None = None
        self._ledger = self._new_ledger()
        interval = settings.lease_seconds / RENEWALS_PER_LEASE
        self._holdings = Holdings(self._ledger, interval, active=lambda _: True, hear=self._hear)
        self._pool = Prefork(self._board, self._make_tools, place=lambda: 0)
        self._enforcer = Enforcer(self._holdings, self._board, self._ledger, self._pool, settings.stop_grace_seconds)

    def run(self) -> int:
        """Run it to its end; 0 however it ended, 1 if it could not be begun or its end not be told."""
        signal.signal(signal.SIGTERM, self._on_stopping)
        try:
            message = patiently(self._read, what="message", seconds=self._settings.patience_seconds)
        except (Unavailable, ValidationError) as error:
            log.error("message_unreadable", key=self._key, error=str(error))  # noqa: TRY400 - the trace says nothing more
            return _COULD_NOT
        if message is None or self._told:
            log.warning("attempt_not_begun", key=self._key, why="stopped" if self._told else "there is no message")
            return _COULD_NOT
        return self._accompany(message)

    def _read(self) -> Message | None:
        # The first renewal must not take what it does not know for what Redis forgot.
        self._holdings.learn_epoch()
        return self._ledger.left(self._key)

    def _accompany(self, message: Message) -> int:
        # Before any thread of ours: what a thread holds while the process forks, nobody releases in the child.
        self._child = child = multiprocessing.get_context("fork").Process(target=self._execute, args=(message,))
        child.start()
        assert child.pid is not None, "it was started"  # noqa: S101 - a mistake of ours, not of a user
        self._holdings.accepted(child, message.member, child.pid, message.token)
        self._holdings.start()
        self._enforcer.start()
        log.info("attempt_accompanied", worker=self._identity, member=message.member, pid=child.pid)
        child.join()
        code = child.exitcode or 0
        if code:
            # Nothing, if its end was told before it was killed.
            self._holdings.process_died(child, f"the process that ran the handler died: {_words(code)}")
        self._enforcer.stop()
        self._holdings.stop()
        log.info("attempt_left", member=message.member, exit_code=code)
        return _COULD_NOT if code > 0 else _DONE

    def _execute(self, message: Message) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        self._pool.runner().execute(message)

    def _new_ledger(self) -> WorkerLedger:
        return WorkerLedger(connect_sync(self._redis), self._identity, self._settings.lease_seconds * 1000)

    def _make_tools(self, output: Output) -> Tools:
        return Tools.make(self._new_ledger(), self._storage, self._settings, self._logs, output, runners=1)

    def _hear(self, answer: Heartbeat) -> None:
        self._enforcer.hear(answer)

    def _on_stopping(self, *_: object) -> None:
        if self._told:
            return
        self._told = True
        self._give_up_timer.start()

    def _give_up(self) -> None:
        if self._child is None or self._child.pid is None:
            return
        log.info("worker_gave_up", handed_back=self._holdings.hand_back())
        # It leads a group of its own, so programs that the handler started end with it.
        with suppress(ProcessLookupError):
            os.killpg(self._child.pid, signal.SIGKILL)


def _words(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"
