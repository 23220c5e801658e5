"""Makes deliveries. Any number of notifiers may run: each leases what it attempts."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Protocol

from taskflow_api.webhooks import metrics
from taskflow_api.webhooks.deliveries import PER_ENDPOINT, Outcome, Taken
from taskflow_api.webhooks.schedule import delay
from taskflow_api.webhooks.secrets import LostKeyError, Vault, signed_headers
from taskflow_api.webhooks.sending import Answer
from taskflow_core.errors import Unavailable
from taskflow_core.store.fitting import fit_text
from taskflow_core.telemetry.logs import get_logger

LOOK_SECONDS = 1.0
SWEEP_SECONDS = 600.0
DRAIN_SECONDS = 20.0
"""Longer than an attempt may take."""
_log = get_logger(__name__)


class Queue(Protocol):
    """The rows; see `PostgresDeliveries`."""

    async def take(self, holder: str, limit: int, *, full: frozenset[str] = frozenset()) -> list[Taken]:
        """Lease some."""

    async def record(self, taken: Taken, holder: str, outcome: Outcome) -> bool:
        """Store what an attempt came to."""

    async def release(self, holder: str) -> None:
        """Give leases back."""

    async def sweep(self, keep: timedelta) -> int:
        """Delete old ones."""

    async def waiting(self) -> tuple[int, float]:
        """How many, and how late."""


class Sends(Protocol):
    """See `Sender`."""

    async def send(self, url: str, body: str, headers: dict[str, str]) -> Answer:
        """One attempt."""


class Notifier:
    """Attempts what is due, at most `parallel` at a time.

    Args:
        queue: the deliveries.
        sender: for the attempts.
        vault: opens the secrets.
        parallel: attempts at a time.
        keep: how long deliveries that ended are shown.
        now: the time that is signed.
    """

    def __init__(
        self,
        queue: Queue,
        sender: Sends,
        vault: Vault,
        *,
        parallel: int,
        keep: timedelta,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._queue = queue
        self._sender = sender
        self._vault = vault
        self._parallel = parallel
        self._keep = keep
        self._now = now
        self._holder = uuid.uuid4().hex
        self._running: dict[asyncio.Task[None], str] = {}
        self._stopping = asyncio.Event()
        self.reached: datetime | None = None
        """When the database answered last."""

    def stop(self) -> None:
        """Take nothing more; `run` returns when what runs has ended."""
        self._stopping.set()

    async def run(self) -> None:
        """Work until `stop`. What is cut off is attempted again when its lease has run out."""
        sweeping = asyncio.create_task(self._sweep_for_ever())
        try:
            while not self._stopping.is_set():
                if not await self._look():
                    await self._pause()
        finally:
            sweeping.cancel()
            if self._running:
                await asyncio.wait(self._running, timeout=DRAIN_SECONDS)
            for each in self._running:
                each.cancel()
            await asyncio.gather(sweeping, *self._running, return_exceptions=True)
            try:
                await self._queue.release(self._holder)
            except Unavailable as error:
                _log.warning("webhook_leases_left", cause=str(error))

    async def _look(self) -> bool:
        """Begin what is due and has room; False if there was nothing."""
        room = self._parallel - len(self._running)
        if room <= 0:
            await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)
            return True
        busy = Counter(self._running.values())
        full = frozenset(endpoint for endpoint, count in busy.items() if count >= PER_ENDPOINT)
        try:
            found = await self._queue.take(self._holder, room, full=full)
        except Unavailable as error:
            _log.warning("webhook_database_away", cause=str(error))
            return False
        except Exception:  # noqa: BLE001 - whatever it is, the next look may go well
            _log.exception("webhook_look_failed")
            return False
        self.reached = self._now()
        for taken in found:
            job = asyncio.create_task(self._attempt_safely(taken))
            self._running[job] = taken.endpoint.id
            job.add_done_callback(self._running.pop)
        return bool(found)

    async def _pause(self) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), LOOK_SECONDS)

    async def _attempt_safely(self, taken: Taken) -> None:
        try:
            await self.attempt(taken)
        except Unavailable as error:
            # It was perhaps delivered; nobody knows, so it is attempted again: at least once.
            _log.warning("webhook_attempt_not_stored", delivery=taken.delivery.id, cause=str(error))
        except Exception:  # noqa: BLE001 - one delivery at fault must not stop the others
            _log.exception("webhook_attempt_broken", delivery=taken.delivery.id)

    async def attempt(self, taken: Taken) -> None:
        """One attempt, and store what it came to.

        Raises:
            Unavailable: it could not be stored.
        """
        now = self._now()
        try:
            headers = signed_headers(self._keys(taken, now), taken.delivery.event_id, now, taken.delivery.payload)
        except LostKeyError as error:
            answer = Answer(error=str(error))
        else:
            answer = await self._sender.send(taken.endpoint.url, taken.delivery.payload, headers)
        outcome = judge(taken.delivery.attempts + 1, answer, now, random.random())  # noqa: S311 - spreads attempts
        if await self._queue.record(taken, self._holder, outcome):
            _tell(taken, answer, outcome)

    def _keys(self, taken: Taken, now: datetime) -> list[str]:
        endpoint = taken.endpoint
        keys = [self._vault.open(endpoint.secret)]
        if (
            endpoint.old_secret is not None
            and endpoint.old_secret_until is not None
            and now < endpoint.old_secret_until
        ):
            keys.append(self._vault.open(endpoint.old_secret))
        return keys

    async def _sweep_for_ever(self) -> None:
        swept = 0.0
        while True:
            try:
                count, late = await self._queue.waiting()
                metrics.PENDING.set(count)
                metrics.OLDEST_DUE.set(late)
                if asyncio.get_running_loop().time() - swept > SWEEP_SECONDS or not swept:
                    while removed := await self._queue.sweep(self._keep):
                        _log.info("webhook_deliveries_swept", count=removed)
                    swept = asyncio.get_running_loop().time()
            except Unavailable:
                pass
            except Exception:  # noqa: BLE001 - the next round may go well
                _log.exception("webhook_sweep_failed")
            await asyncio.sleep(10)


def judge(made: int, answer: Answer, at: datetime, random: float) -> Outcome:
    """What an attempt came to.

    Args:
        made: attempts with this one.
        answer: how it ended.
        at: when it began.
        random: as in `schedule.delay`.
    """
    told = {
        "at": at.isoformat(timespec="milliseconds"),
        "status": answer.status,
        "error": answer.error,
        "milliseconds": round(answer.seconds * 1000),
        "answer": fit_text(answer.body),
    }
    if answer.ok:
        return Outcome(told, delivered=True)
    if answer.gone:
        return Outcome(told, delivered=False, disable="Gone")
    return Outcome(told, delivered=False, again=delay(made, answer.retry_after, random))


def _tell(taken: Taken, answer: Answer, outcome: Outcome) -> None:
    if outcome.delivered:
        word = "delivered"
    elif outcome.disable:
        word = "disabled"
    elif answer.error.startswith("refused: "):
        word = "refused"
    else:
        word = "postponed" if outcome.again is not None else "failed"
    metrics.ATTEMPTS.labels(outcome=word).inc()
    metrics.SECONDS.observe(answer.seconds)
    again = outcome.again
    say = _log.info if outcome.delivered else _log.warning
    say(
        f"webhook_{word}", namespace=taken.delivery.namespace, webhook=taken.endpoint.name, delivery=taken.delivery.id,
        event_type=taken.delivery.type, uid=taken.delivery.task_uid, attempt=taken.delivery.attempts + 1,
        status=answer.status, error=answer.error or None, next_seconds=again and round(again.total_seconds()),
    )  # fmt: skip
