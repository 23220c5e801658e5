"""Makes the deliveries that are due. Any number of notifiers may run, because each leases what it attempts."""

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
from taskflow_api.webhooks.deliveries import PER_ENDPOINT, LeasedDelivery, Outcome
from taskflow_api.webhooks.retry_schedule import delay
from taskflow_api.webhooks.secrets import LostKeyError, Vault, signed_headers
from taskflow_api.webhooks.sender import Answer
from taskflow_core.errors import Unavailable
from taskflow_core.store.fitting import fit_text
from taskflow_core.telemetry.logs import get_logger

POLL_SECONDS = 1.0
SWEEP_SECONDS = 600.0
DRAIN_SECONDS = 20.0
"""Longer than the maximum duration of an attempt."""
_log = get_logger(__name__)


class DeliveryQueue(Protocol):
    """The queue of deliveries; see `PostgresDeliveries`."""

    async def lease(self, holder: str, limit: int, *, full: frozenset[str] = frozenset()) -> list[LeasedDelivery]:
        """Lease due deliveries."""

    async def record(self, leased: LeasedDelivery, holder: str, outcome: Outcome) -> bool:
        """Store the outcome of an attempt."""

    async def release(self, holder: str) -> None:
        """Release leases."""

    async def sweep(self, keep: timedelta) -> int:
        """Delete old deliveries."""

    async def backlog(self) -> tuple[int, float]:
        """The number of pending deliveries, and how long the oldest has been due."""


class MessageSender(Protocol):
    """Sends messages; see `Sender`."""

    async def send(self, url: str, body: str, headers: dict[str, str]) -> Answer:
        """Make one attempt."""


class Notifier:
    """Attempts due deliveries, at most `parallel` at a time.

    Args:
        queue: The deliveries.
        sender: Makes the attempts.
        vault: Decrypts the secrets.
        parallel: Maximum concurrent attempts.
        keep: How long finished deliveries are kept.
        now: The clock for signatures.
    """

    def __init__(
        self,
        queue: DeliveryQueue,
        sender: MessageSender,
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
        self.database_seen: datetime | None = None
        """When the database last answered."""

    def stop(self) -> None:
        """Lease no more deliveries. `run` returns when the running attempts have ended."""
        self._stopping.set()

    async def run(self) -> None:
        """Run until `stop`. Interrupted attempts are repeated after their leases expire."""
        sweeping = asyncio.create_task(self._sweep_forever())
        try:
            while not self._stopping.is_set():
                if not await self._start_due():
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
                _log.warning("webhook_leases_not_released", cause=str(error))

    async def _start_due(self) -> bool:
        """Start as many due attempts as there is room for; False if there were none."""
        room = self._parallel - len(self._running)
        if room <= 0:
            await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)
            return True
        busy = Counter(self._running.values())
        full = frozenset(endpoint for endpoint, count in busy.items() if count >= PER_ENDPOINT)
        try:
            found = await self._queue.lease(self._holder, room, full=full)
        except Unavailable as error:
            _log.warning("webhook_database_unavailable", cause=str(error))
            return False
        except Exception:  # noqa: BLE001 - the next poll may succeed
            _log.exception("webhook_poll_failed")
            return False
        self.database_seen = self._now()
        for leased in found:
            job = asyncio.create_task(self._attempt_safely(leased))
            self._running[job] = leased.endpoint.id
            job.add_done_callback(self._running.pop)
        return bool(found)

    async def _pause(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(POLL_SECONDS):
                await self._stopping.wait()

    async def _attempt_safely(self, leased: LeasedDelivery) -> None:
        try:
            await self.attempt(leased)
        except Unavailable as error:
            # The message may have been delivered. It is sent again, because delivery is at least once.
            _log.warning("webhook_attempt_not_stored", delivery=leased.delivery.id, cause=str(error))
        except Exception:  # noqa: BLE001 - one broken delivery must not stop the others
            _log.exception("webhook_attempt_failed", delivery=leased.delivery.id)

    async def attempt(self, leased: LeasedDelivery) -> None:
        """Make one attempt and store its outcome.

        Raises:
            Unavailable: the outcome could not be stored.
        """
        now = self._now()
        try:
            headers = signed_headers(self._keys(leased, now), leased.delivery.event_id, now, leased.delivery.payload)
        except LostKeyError as error:
            answer = Answer(error=str(error))
        else:
            answer = await self._sender.send(leased.endpoint.url, leased.delivery.payload, headers)
        outcome = outcome_of(leased.delivery.attempts + 1, answer, now, random.random())  # noqa: S311 - spreads attempts
        if await self._queue.record(leased, self._holder, outcome):
            _report(leased, answer, outcome)

    def _keys(self, leased: LeasedDelivery, now: datetime) -> list[str]:
        endpoint = leased.endpoint
        keys = [self._vault.decrypt(endpoint.secret)]
        if (
            endpoint.old_secret is not None
            and endpoint.old_secret_until is not None
            and now < endpoint.old_secret_until
        ):
            keys.append(self._vault.decrypt(endpoint.old_secret))
        return keys

    async def _sweep_forever(self) -> None:
        swept = 0.0
        while True:
            try:
                count, late = await self._queue.backlog()
                metrics.PENDING.set(count)
                metrics.OLDEST_DUE.set(late)
                if asyncio.get_running_loop().time() - swept > SWEEP_SECONDS or not swept:
                    while removed := await self._queue.sweep(self._keep):
                        _log.info("webhook_deliveries_swept", count=removed)
                    swept = asyncio.get_running_loop().time()
            except Unavailable:
                pass
            except Exception:  # noqa: BLE001 - the next round may succeed
                _log.exception("webhook_sweep_failed")
            await asyncio.sleep(10)


def outcome_of(attempts: int, answer: Answer, at: datetime, random: float) -> Outcome:
    """The outcome of an attempt.

    Args:
        attempts: Number of attempts, including this one.
        answer: The answer of the receiver.
        at: When the attempt started.
        random: As in `retry_schedule.delay`.
    """
    attempt = {
        "at": at.isoformat(timespec="milliseconds"),
        "status": answer.status,
        "error": answer.error,
        "milliseconds": round(answer.seconds * 1000),
        "answer": fit_text(answer.body),
    }
    if answer.ok:
        return Outcome(attempt, delivered=True)
    if answer.gone:
        return Outcome(attempt, delivered=False, disable="Gone")
    return Outcome(attempt, delivered=False, retry_after=delay(attempts, answer.retry_after, random))


def _report(leased: LeasedDelivery, answer: Answer, outcome: Outcome) -> None:
    if outcome.delivered:
        result = "delivered"
    elif outcome.disable:
        result = "disabled"
    elif answer.error.startswith("refused: "):
        result = "refused"
    else:
        result = "postponed" if outcome.retry_after is not None else "failed"
    metrics.ATTEMPTS.labels(outcome=result).inc()
    metrics.SECONDS.observe(answer.seconds)
    retry_after = outcome.retry_after
    log = _log.info if outcome.delivered else _log.warning
    log(
        f"webhook_{result}",
        namespace=leased.delivery.namespace,
        webhook=leased.endpoint.name,
        delivery=leased.delivery.id,
        event_type=leased.delivery.type,
        uid=leased.delivery.task_uid,
        attempt=leased.delivery.attempts + 1,
        status=answer.status,
        error=answer.error or None,
        next_seconds=retry_after and round(retry_after.total_seconds()),
    )
