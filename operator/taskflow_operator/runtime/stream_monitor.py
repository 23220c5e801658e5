"""Watches over the event streams of all namespaces: wakes their readers, finds what they missed, and makes a broken
stream anew.
"""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_right
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable

from redis.asyncio import Redis

from taskflow_core.domain.events import Origin, Stream
from taskflow_core.errors import Unavailable
from taskflow_core.ledger.changes import KeyChanges
from taskflow_core.ledger.lag import Lag, lag_of
from taskflow_core.ledger.namespaces import Namespaces
from taskflow_core.ledger.stream import Standing, stream_key, trim_read
from taskflow_core.telemetry import metrics
from taskflow_core.telemetry.logs import get_logger
from taskflow_operator.runtime import dependency_health
from taskflow_operator.runtime.pauses import Pauses
from taskflow_operator.runtime.stream_group import StreamGroup

log = get_logger(__name__)
LOOK_SECONDS = 2.0
TRIM_LOOKS = 5
"""Looks between two trimmings; the sizes of the streams are looked at then, too."""
ALL_LOOKS = 15
"""Looks between two that include namespaces without open Tasks, and after which unacknowledged entries are read again:
they failed, or a former leader read them and died."""
RETRY_SECONDS = 1.0
UNUSED_MS = 24 * 3600 * 1000
"""A namespace without open Tasks whose streams were not written for so long is forgotten."""
AT_ONCE = 100
"""Namespaces that one round trip looks at."""

SetAside = Callable[[str, str], None]


class StreamMonitor:
    """Wakes the readers of streams that changed. Every few seconds it looks at the streams of namespaces with open
    Tasks, at most a hundred at a time, and every half minute at all.

    A namespace whose stream is broken is set aside: its streams are deleted and made anew from its Tasks, more rarely
    if that goes on. The others notice nothing.

    Args:
        namespaces: which there are.
        groups: the readers.
        active: the namespaces with open Tasks.
        now_ms: Redis' clock.
        client: connection.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        namespaces: Namespaces,
        groups: Iterable[StreamGroup],
        active: Callable[[], Collection[str]],
        now_ms: Callable[[], Awaitable[int]],
        client: Redis,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._namespaces = namespaces
        self._groups = list(groups)
        self._active = active
        self._now_ms = now_ms
        self._changes = KeyChanges(client, self._changed)
        self._readers: dict[str, list[tuple[StreamGroup, Stream]]] = {}
        self._watched: set[str] = set()
        self._looks = 0
        self._last_active = ""
        self._standings: dict[str, dict[Stream, Standing]] = {group.reader.group: {} for group in self._groups}
        self._gaps: frozenset[tuple[str, Stream]] = frozenset()
        """Known already; they are there until what follows is read."""
        self._lost: dict[str, bool] = {}
        """Namespaces whose streams lost entries, until that is seen to, and whether these were not applied either."""
        self._pauses = Pauses(clock)
        """To see to a namespace means to read and write all of its Tasks, and its workers can break its streams as
        often as they like."""
        self.set_aside: list[SetAside] = []
        """Called with a namespace whose stream was broken, and why."""
        self.lags: dict[str, Lag] = {}
        """By group, from the last look."""

    def loops(self) -> tuple[Coroutine[None, None, None], ...]:
        """What runs until cancelled."""
        return self._look_forever(), self._listen_forever(), *(group.run() for group in self._groups)

    def read_again(self, namespace: str) -> None:
        """Have everything read that is in the streams of a namespace."""
        for group in self._groups:
            group.ready(group.reader.streams_of(namespace))

    def watch(self, namespaces: Iterable[str]) -> None:
        """Watch the streams of these namespaces, too."""
        new = [name for name in namespaces if name not in self._watched]
        for name in new:
            self._watched.add(name)
            for group in self._groups:
                for stream in group.reader.streams_of(name):
                    self._readers.setdefault(stream_key(stream), []).append((group, stream))
            self.read_again(name)
        if new:
            self._changes.watch(self._readers)

    def _changed(self, keys: Collection[str]) -> None:
        for key in keys:
            for group, stream in self._readers.get(key, ()):
                group.ready([stream])

    async def _listen_forever(self) -> None:
        while True:
            try:
                await self._changes.run()
            except Unavailable as error:
                dependency_health.failed(error)
            await asyncio.sleep(RETRY_SECONDS)

    async def _look_forever(self) -> None:
        while True:
            try:
                await self.look()
            except Unavailable as error:
                dependency_health.failed(error)
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """Look once.

        Raises:
            Unavailable: Redis does not answer.
        """
        self.watch(self._namespaces.known)
        everything, trims = self._looks % ALL_LOOKS == 0, self._looks % TRIM_LOOKS == 0
        self._looks += 1
        names = sorted(self._namespaces.known) if everything else self._next_active()
        problems: dict[str, str] = {}
        for start in range(0, len(names), AT_ONCE):
            some, now_ms = names[start : start + AT_ONCE], await self._now_ms()
            for group in self._groups:
                standings = await group.reader.look(some, now_ms, sizes=trims)
                for standing in standings:
                    self._judge(group, standing, problems, again=everything)
                self._standings[group.reader.group] |= {each.stream: each for each in standings}
            if trims:
                await trim_read(self._client, _both(some), now_ms)
        self._show()
        for namespace, why in problems.items():
            if self._pauses.over(namespace):
                await self._make_anew(namespace, why)
        for namespace in [name for name in self._lost if self._pauses.over(name)]:
            await self._namespaces.trimmed(namespace, unapplied=self._lost[namespace])
            del self._lost[namespace]
        if everything:
            await self._forget_unused()

    def _next_active(self) -> list[str]:
        """Those with open Tasks, in turn: a look costs the same, however many there are."""
        known = self._namespaces.known
        names = sorted(name for name in self._active() if name in known)
        if len(names) <= AT_ONCE:
            return names
        start = bisect_right(names, self._last_active)
        chosen = (names[start:] + names[:start])[:AT_ONCE]
        self._last_active = chosen[-1]
        return chosen

    def _judge(self, group: StreamGroup, standing: Standing, problems: dict[str, str], *, again: bool) -> None:
        stream = standing.stream
        if standing.problem:
            problems[stream.namespace] = standing.problem
            return
        gap = (group.reader.group, stream)
        if standing.gap and gap not in self._gaps:
            log.warning("stream_trimmed", namespace=stream.namespace, consumer=group.reader.group)
            unapplied = group.reader.group == "cr"
            self._lost[stream.namespace] = unapplied or self._lost.get(stream.namespace, False)
        self._gaps = self._gaps | {gap} if standing.gap else self._gaps - {gap}
        if standing.pending and again:
            group.reader.start_over(stream)
            group.ready([stream])
        elif standing.unread:
            group.ready([stream])

    async def _make_anew(self, namespace: str, why: str) -> None:
        if await self._namespaces.reset(namespace):
            log.warning("namespace_set_aside", namespace=namespace, why=why)
            metrics.NAMESPACES_SET_ASIDE.labels(namespace=namespace).inc()
            for listener in self.set_aside:
                listener(namespace, why)
        self.read_again(namespace)

    async def _forget_unused(self) -> None:
        """Namespaces come and go; nothing is kept of one that nobody has used for long."""
        active = self._active()
        looked, used = set[str](), set(active)
        for standings in self._standings.values():
            for stream, each in standings.items():
                looked.add(stream.namespace)
                if each.problem or each.pending or each.unread or each.idle_ms < UNUSED_MS:
                    used.add(stream.namespace)
        unused = sorted(looked - used)
        if not unused:
            return
        await self._namespaces.forget(unused)
        for name in unused:
            self._watched.discard(name)
            self._pauses.forget(name)
            for group in self._groups:
                for stream in group.reader.streams_of(name):
                    self._standings[group.reader.group].pop(stream, None)
                    self._readers.pop(stream_key(stream), None)
                    self._changes.forget([stream_key(stream)])
        log.info("namespaces_forgotten", count=len(unused))

    def _show(self) -> None:
        for group, standings in self._standings.items():
            lag = self.lags[group] = lag_of(group, standings.values())
            metrics.MIRROR_LAG.labels(consumer=group).set(lag.seconds)
            metrics.STREAM_PENDING.labels(consumer=group).set(lag.entries)


def _both(names: Iterable[str]) -> list[Stream]:
    return [Stream(name, origin) for name in names for origin in Origin]
