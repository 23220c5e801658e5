"""When the ticks of a TaskSchedule are. A tick is an instant in UTC, in whole seconds.

The lines of `schedules` are read by `cronsim`, which has the rules of Debian's cron. What a change of the clocks does
to them is decided here, so that the ticks do not depend on where a walk begins, nor on its direction:

- a line whose minute or hour begins with `*` follows real time: in an hour that comes twice it ticks in both, and in
  one that is left out not at all;
- any other line ticks once for each time on the wall: at the end of the gap if that time is left out, and at the first
  of the two if it comes twice.

Zones come from the package `tzdata` and never from the system, so that all components agree.
"""

from __future__ import annotations

import difflib
import hashlib
import heapq
import itertools
import re
from bisect import insort
from calendar import monthrange
from collections.abc import Iterable, Iterator, Sequence
from datetime import MAXYEAR, MINYEAR, UTC, date, datetime, timedelta
from functools import lru_cache
from importlib import resources
from typing import Protocol
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from taskflow_core.domain.taskschedule import Every, TaskScheduleSpec
from taskflow_core.errors import Invalid

SECOND, MICROSECOND = timedelta(seconds=1), timedelta(microseconds=1)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MACROS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
}
_FIELDS = {"minute": (0, 59), "hour": (0, 23), "day-of-month": (1, 28), "month": (1, 12), "day-of-week": (0, 6)}
"""Of a line, and between which numbers `H` chooses: a day of the month is one that every month has."""
_LINE = re.compile(r"[0-9A-Za-z*/,()#-]+( [0-9A-Za-z*/,()#-]+){4}")
_HASHED = re.compile(r"H(?:\((?P<low>[0-9]{1,2})-(?P<high>[0-9]{1,2})\))?(?:/(?P<step>[0-9]{1,2}))?")
SEARCHED_YEARS = 50
"""A line that has no tick for so long never comes."""
_SOME_TIME = datetime(2000, 1, 1)  # noqa: DTZ001 - on the wall; the library begins somewhere


class InvalidSchedule(Invalid):
    """A schedule that has no ticks, because a line or an interval cannot be read or never comes."""


class UnknownTimeZone(Invalid):
    """There is no such zone in the time zone database."""


class _Ticks(Protocol):
    """An endless series of ticks."""

    def after(self, time: datetime) -> Iterator[datetime]:
        """Those after the time, ascending."""

    def until(self, time: datetime) -> Iterator[datetime]:
        """Those until the time, itself included, descending."""


class _Interval:
    """`every`: the same distance of real time, whatever the clocks do."""

    def __init__(self, every: Every) -> None:
        self._step = timedelta(seconds=every.seconds)
        self._anchor = (every.anchor or EPOCH).replace(microsecond=0)

    def after(self, time: datetime) -> Iterator[datetime]:
        return self._from((time - self._anchor) // self._step + 1, 1)

    def until(self, time: datetime) -> Iterator[datetime]:
        return self._from((time - self._anchor) // self._step, -1)

    def _from(self, count: int, direction: int) -> Iterator[datetime]:
        for each in itertools.count(count, direction):
            try:
                tick = self._anchor + each * self._step
            except OverflowError:
                return
            yield tick


class _Pattern:
    """The times on the wall of a line, as it was read by the library. Those of a day are made from it at once: the
    library finds each by itself, and takes ten times as long.
    """

    def __init__(self, read: CronSim) -> None:
        self._months, self._on = frozenset(read.months), read.match_day
        self._hours, self._minutes = sorted(read.hours), sorted(read.minutes)

    def after(self, wall: datetime) -> Iterator[datetime]:
        """Those after the time, ascending, as long as there is one within 50 years."""
        for day in self._days(wall.date(), 1):
            same = day == wall.date()
            for hour in self._hours:
                if same and hour < wall.hour:
                    continue
                for minute in self._minutes:
                    if not same or (hour, minute) > (wall.hour, wall.minute):
                        yield datetime(day.year, day.month, day.day, hour, minute)  # noqa: DTZ001 - on the wall

    def until(self, wall: datetime) -> Iterator[datetime]:
        """Those until the time, itself included, descending."""
        for day in self._days(wall.date(), -1):
            same = day == wall.date()
            for hour in self._hours[::-1]:
                if same and hour > wall.hour:
                    continue
                for minute in self._minutes[::-1]:
                    if not same or (hour, minute) <= (wall.hour, wall.minute):
                        yield datetime(day.year, day.month, day.day, hour, minute)  # noqa: DTZ001 - on the wall

    def _days(self, day: date, direction: int) -> Iterator[date]:
        found = day.year
        while abs(day.year - found) <= SEARCHED_YEARS and MINYEAR < day.year < MAXYEAR:
            if day.month not in self._months:
                # To the first or the last day of the month; the step below leads out of it.
                day = day.replace(day=1) if direction < 0 else day.replace(day=monthrange(day.year, day.month)[1])
            elif self._on(day):
                found = day.year
                yield day
            day += timedelta(days=direction)


class _CronLine:
    """One line in one zone."""

    def __init__(self, line: str, zone: ZoneInfo) -> None:
        self._zone, self._pattern = zone, _pattern(line)
        minute, hour, *_ = line.split(" ")
        self._real_time = minute.startswith("*") or hour.startswith("*")

    def after(self, time: datetime) -> Iterator[datetime]:
        # Times on the wall ascend, and so do their first instants. A second instant waits until the first ones that
        # come before it are out.
        wall = _wall(time, self._zone)
        waiting: list[datetime] = []
        for each in self._pattern.after(wall - _overlap(wall, self._zone)):
            for instant in (instants := self._instants(each)):
                insort(waiting, instant)
            while instants and waiting and waiting[0] <= instants[0]:
                if (found := waiting.pop(0)) > time:
                    yield found
        yield from waiting

    def until(self, time: datetime) -> Iterator[datetime]:
        wall = _wall(time, self._zone)
        waiting: list[datetime] = []
        for each in self._pattern.until(wall + _overlap(wall, self._zone)):
            for instant in (instants := self._instants(each)):
                insort(waiting, instant)
            while instants and waiting and waiting[-1] >= instants[-1]:
                if (found := waiting.pop()) <= time:
                    yield found
        yield from reversed(waiting)

    def _instants(self, wall: datetime) -> Sequence[datetime]:
        """When this time on the wall ticks, ascending."""
        before, after = _offset(wall, self._zone, 0), _offset(wall, self._zone, 1)
        first = (wall - before).replace(tzinfo=UTC)
        if before == after:
            return (first,)
        if before > after:
            return (first, (wall - after).replace(tzinfo=UTC)) if self._real_time else (first,)
        return () if self._real_time else (_end_of_gap(wall, self._zone),)


class Calendar:
    """The ticks of one schedule: those of any of its lines, each once, from its start to its end.

    Args:
        series: lines or an interval.
        start: the first instant that may be a tick.
        end: the first instant that may be none any more.
        resolved: the lines, with numbers in the place of `H`.
    """

    def __init__(
        self,
        series: Sequence[_Ticks],
        *,
        start: datetime | None = None,
        end: datetime | None = None,
        resolved: Sequence[str] = (),
    ) -> None:
        self._series = tuple(series)
        self._start, self._end = start, end
        self.resolved = tuple(resolved)

    def after(self, time: datetime) -> Iterator[datetime]:
        """Ticks after the time, ascending."""
        start, end = self._start, self._end
        if start is not None and start > time:
            time = start - MICROSECOND
        found = self._ascending(time)
        return found if end is None else itertools.takewhile(lambda tick: tick < end, found)

    def until(self, time: datetime) -> Iterator[datetime]:
        """Ticks until the time, itself included, descending."""
        start, end = self._start, self._end
        if end is not None and end <= time:
            time = end - MICROSECOND
        found = self._descending(time)
        return found if start is None else itertools.takewhile(lambda tick: tick >= start, found)

    def due(self, after: datetime, until: datetime, most: int) -> list[datetime]:
        """The newest ticks of `(after, until]`, at most so many, ascending; a long interval costs no more."""
        found = itertools.takewhile(lambda tick: tick > after, self.until(until))
        return list(itertools.islice(found, most))[::-1]

    def neighbours(self, tick: datetime) -> tuple[datetime | None, datetime | None]:
        """The ticks before and after this one, also before the start and after the end."""
        return next(self._descending(tick - MICROSECOND), None), next(self._ascending(tick), None)

    def _ascending(self, time: datetime) -> Iterator[datetime]:
        return _once(heapq.merge(*(each.after(time) for each in self._series)))

    def _descending(self, time: datetime) -> Iterator[datetime]:
        return _once(heapq.merge(*(each.until(time) for each in self._series), reverse=True))


def calendar_of(spec: TaskScheduleSpec, namespace: str, name: str) -> Calendar:
    """The calendar of a schedule.

    Args:
        spec: its timing counts.
        namespace: of the schedule; `H` depends on it.
        name: likewise.

    Raises:
        UnknownTimeZone: `timeZone` names no zone.
        InvalidSchedule: a line cannot be read, or never comes.
    """
    zone = time_zone(spec.time_zone)
    start, end = spec.start_time, spec.end_time
    if spec.every is not None:
        return Calendar([_Interval(spec.every)], start=start, end=end)
    resolved: list[str] = []
    for index, line in enumerate(spec.schedules):
        try:
            resolved.append(resolve(line, namespace, name))
        except InvalidSchedule as error:
            raise InvalidSchedule(f"spec.schedules[{index}]: {error}") from None
    if not resolved:
        raise InvalidSchedule("exactly one of schedules and every has to be set")
    return Calendar([_CronLine(line, zone) for line in resolved], start=start, end=end, resolved=resolved)


@lru_cache(maxsize=1024)
def time_zone(name: str) -> ZoneInfo:
    """A zone of the package `tzdata`.

    Raises:
        UnknownTimeZone: it has none of this name.
    """
    if name not in _zone_names():
        close = difflib.get_close_matches(name, _zone_names(), 1)
        hint = f"; did you mean {close[0]}?" if close else ", such as Europe/Berlin"
        raise UnknownTimeZone(f"spec.timeZone: expected a zone of the IANA time zone database{hint}; found {name!r}")
    path = resources.files("tzdata").joinpath("zoneinfo", *name.split("/"))
    with path.open("rb") as file:
        return ZoneInfo.from_file(file, key=name)


@lru_cache(maxsize=4096)
def resolve(line: str, namespace: str, name: str) -> str:
    """A line of `schedules` as five fields that cron knows: a number for each `H`, and no `@daily`.

    Raises:
        InvalidSchedule: it cannot be read, or never comes.
    """
    if line.startswith("@"):
        if line not in MACROS:
            raise InvalidSchedule(f"expected one of {', '.join(MACROS)}, found {line!r}")
        return MACROS[line]
    if not _LINE.fullmatch(line):
        raise InvalidSchedule(f"expected five fields such as '30 2 * * *' or a name such as @daily, found {line!r}")
    named = zip(line.split(" "), _FIELDS, strict=True)
    resolved = " ".join(
        ",".join(_hashed(part, field, f"{namespace}/{name}/{field}", line) for part in text.split(","))
        for text, field in named
    )
    try:
        comes = next(_pattern(resolved).after(_SOME_TIME), None)
    except (CronSimError, AssertionError) as error:
        # An assertion of the library fails where a list is given a step.
        what = str(error).removeprefix("Bad ") or "value"
        raise InvalidSchedule(f"expected a {what} that cron knows and that comes, found {line!r}") from None
    if comes is None:
        raise InvalidSchedule(f"expected times that come, found {line!r}, which does not within 50 years")
    return resolved


@lru_cache(maxsize=4096)
def _pattern(line: str) -> _Pattern:
    return _Pattern(CronSim(line, _SOME_TIME))


def _hashed(part: str, field: str, seed: str, line: str) -> str:
    """A part of a field, with a number in the place of `H`."""
    if (match := _HASHED.fullmatch(part)) is None:
        return part
    least, most = _FIELDS[field]
    low, high = int(match["low"] or least), int(match["high"] or most)
    step = int(match["step"] or 0)
    if not least <= low <= high <= max(most, 31 if field == "day-of-month" else most) or match["step"] == "0":
        raise InvalidSchedule(f"expected a {field} of H({least}-{most}) or a part of it, found {line!r}")
    number = int.from_bytes(hashlib.sha256(seed.encode()).digest()[:8])
    if not step:
        return str(low + number % (high - low + 1))
    return f"{low + number % min(step, high - low + 1)}-{high}/{step}"


@lru_cache(maxsize=1)
def _zone_names() -> frozenset[str]:
    return frozenset(resources.files("tzdata").joinpath("zones").read_text().split())


def _once(ticks: Iterable[datetime]) -> Iterator[datetime]:
    return (tick for tick, _ in itertools.groupby(ticks))


def _wall(time: datetime, zone: ZoneInfo) -> datetime:
    return time.astimezone(zone).replace(tzinfo=None, microsecond=0)


def _offset(wall: datetime, zone: ZoneInfo, fold: int) -> timedelta:
    return wall.replace(tzinfo=zone, fold=fold).utcoffset() or timedelta()


def _overlap(wall: datetime, zone: ZoneInfo) -> timedelta:
    """How long the times on the wall around this one come twice; zero if this one comes once."""
    return max(_offset(wall, zone, 0) - _offset(wall, zone, 1), timedelta())


def _end_of_gap(wall: datetime, zone: ZoneInfo) -> datetime:
    """When the clocks were put forward over this time on the wall."""
    after = _offset(wall, zone, 1)
    low, high = ((wall - _offset(wall, zone, fold)).replace(tzinfo=UTC) for fold in (1, 0))
    while high - low > SECOND:
        middle = (low + (high - low) / 2).replace(microsecond=0)
        if middle.astimezone(zone).utcoffset() == after:
            high = middle
        else:
            low = middle
    return high
