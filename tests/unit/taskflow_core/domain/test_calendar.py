from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from croniter import croniter
from cronsim import CronSim
from hypothesis import example, given, settings
from hypothesis import strategies as st

from taskflow_core.domain.calendar import (
    Calendar,
    InvalidSchedule,
    UnknownTimeZone,
    calendar_of,
    resolve,
    time_zone,
)
from taskflow_core.domain.taskschedule import TaskScheduleSpec

DAY = timedelta(days=1)
CHANGES = {
    # Zone, and an instant near which its clocks change.
    "Europe/Berlin": "2026-03-29T01:00",
    "America/New_York": "2026-11-01T06:00",
    "Australia/Lord_Howe": "2026-10-03T15:30",
    "Pacific/Chatham": "2026-04-04T14:00",
    "Asia/Beirut": "2026-03-28T22:00",
    "Africa/Cairo": "2026-04-23T22:00",
    "America/Havana": "2026-11-01T05:00",
    "Pacific/Apia": "2011-12-30T10:00",
    "America/Santiago": "2026-09-06T04:00",
    "Antarctica/Troll": "2026-03-29T01:00",
    "Etc/UTC": "2026-01-01T00:00",
}


def at(text: str) -> datetime:
    time = datetime.fromisoformat(text)
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def calendar(*lines: str, zone: str = "Etc/UTC", **fields: object) -> Calendar:
    timing = {} if "every" in fields else {"schedules": lines}
    spec = TaskScheduleSpec.model_validate({"timeZone": zone, "taskTemplate": {"spec": {}}, **timing, **fields})
    return calendar_of(spec, "team-a", "nightly")


def local(found: Calendar, zone: str, after: str, count: int) -> list[str]:
    ticks = itertools.islice(found.after(at(after)), count)
    return [tick.astimezone(time_zone(zone)).isoformat(timespec="minutes") for tick in ticks]


@pytest.mark.parametrize(
    ("line", "zone", "after", "expected"),
    [
        ("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00", ["2026-03-29T03:00+02:00", "2026-03-30T02:30+02:00"]),
        ("0,30 2 * * *", "Europe/Berlin", "2026-03-28T12:00", ["2026-03-29T03:00+02:00", "2026-03-30T02:00+02:00"]),
        ("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00", ["2026-10-25T02:30+02:00", "2026-10-26T02:30+01:00"]),
        ("30 * * * *", "Europe/Berlin", "2026-10-25T00:00", ["2026-10-25T02:30+02:00", "2026-10-25T02:30+01:00"]),
        ("30 * * * *", "Europe/Berlin", "2026-03-29T00:00", ["2026-03-29T01:30+01:00", "2026-03-29T03:30+02:00"]),
        ("*/30 2 * * *", "Europe/Berlin", "2026-03-28T12:00", ["2026-03-30T02:00+02:00", "2026-03-30T02:30+02:00"]),
        ("15 2 * * *", "Australia/Lord_Howe", "2026-10-02T20:00", ["2026-10-04T02:30+11:00", "2026-10-05T02:15+11:00"]),
        ("45 1 * * *", "Australia/Lord_Howe", "2026-04-03T20:00", ["2026-04-05T01:45+11:00", "2026-04-06T01:45+10:30"]),
        ("45 * * * *", "Australia/Lord_Howe", "2026-04-04T14:00", ["2026-04-05T01:45+11:00", "2026-04-05T01:45+10:30"]),
        ("0 0 * * *", "Asia/Beirut", "2026-03-28T12:00", ["2026-03-29T01:00+03:00", "2026-03-30T00:00+03:00"]),
        ("0 0 * * *", "Pacific/Apia", "2011-12-29T12:00", ["2011-12-31T00:00+14:00", "2012-01-01T00:00+14:00"]),
    ],
)
def test_what_a_change_of_the_clocks_does(line: str, zone: str, after: str, expected: list[str]) -> None:
    assert local(calendar(line, zone=zone), zone, after, 2) == expected


def test_lines_are_a_union_and_an_instant_is_one_tick() -> None:
    found = calendar("0 * * * *", "*/30 * * * *", "0 0 * * *")
    ticks = [f"{tick:%H:%M}" for tick in itertools.islice(found.after(at("2026-01-01T22:30")), 4)]
    assert ticks == ["23:00", "23:30", "00:00", "00:30"]


def test_an_interval_does_not_know_zones() -> None:
    found = calendar(every={"seconds": 5400, "anchor": "2026-03-29T00:30:00Z"}, zone="Europe/Berlin")
    assert [f"{tick:%H:%M}" for tick in itertools.islice(found.after(at("2026-03-29T00:00")), 3)] == [
        "00:30",
        "02:00",
        "03:30",
    ]
    assert [f"{tick:%d %H:%M}" for tick in itertools.islice(found.until(at("2026-03-29T02:00")), 3)] == [
        "29 02:00",
        "29 00:30",
        "28 23:00",
    ]


def test_the_start_is_included_and_the_end_is_not() -> None:
    found = calendar("0 * * * *", startTime="2026-01-01T10:00:00Z", endTime="2026-01-01T12:00:00Z")
    both = [at("2026-01-01T10:00"), at("2026-01-01T11:00")]
    assert list(found.after(at("2025-01-01"))) == both
    assert list(found.until(at("2027-01-01"))) == both[::-1]
    assert found.neighbours(both[0]) == (at("2026-01-01T09:00"), both[1])


@pytest.mark.parametrize("year", [1, 9999])
def test_the_ends_of_time_are_ends(year: int) -> None:
    edge = datetime(year, 6, 1, tzinfo=UTC)
    for found in (calendar("0 0 29 2 *"), calendar(every={"seconds": 31_536_000})):
        assert len(list(itertools.islice(found.after(edge), 5))) <= 5
        assert len(list(itertools.islice(found.until(edge), 5))) <= 5


def test_a_long_interval_is_walked_from_its_end() -> None:
    found = calendar("* * * * *", zone="Europe/Berlin").due(at("1980-01-01"), at("2026-01-01"), 1000)
    assert (len(found), found[-1]) == (1000, at("2026-01-01"))
    assert found[0] == at("2026-01-01") - timedelta(minutes=999)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("0 0 31 2 *", "day-of-month"),
        ("0 0 */29 * MON#3", "within 50 years"),
        ("5-1 * * * *", "minute"),
        ("61 * * * *", "minute"),
        ("0 24 * * *", "hour"),
        ("0 0 * 13 *", "month"),
        ("0 0 * * 8", "day-of-week"),
        ("0 0 * * MON#6", "day-of-week"),
        ("*/0 * * * *", "minute"),
        ("R * * * *", "minute"),
        ("H(50-70) * * * *", "H(0-59)"),
        ("H(9-3) * * * *", "H(0-59)"),
        ("H/0 * * * *", "H(0-59)"),
        ("0 0 H(0-5) * *", "H(1-28)"),
        ("0 30 2 * * *", "five fields"),
        ("@reboot", "@daily"),
        ("", "five fields"),
    ],
)
def test_a_line_that_cannot_be_read_is_told_with_its_field(line: str, words: str) -> None:
    with pytest.raises(InvalidSchedule) as caught:
        calendar("0 0 * * *", line)
    assert "spec.schedules[1]" in str(caught.value)
    assert words in str(caught.value)
    assert repr(line) in str(caught.value)


def test_an_unknown_zone_is_told_with_a_hint() -> None:
    with pytest.raises(UnknownTimeZone, match=r"did you mean Europe/Berlin\?; found 'Europe/Berln'"):
        calendar("0 0 * * *", zone="Europe/Berln")
    for name in ("Local", "../Europe/Berlin", "europe/berlin", "Europe", ""):
        with pytest.raises(UnknownTimeZone):
            calendar("0 0 * * *", zone=name)


def test_h_is_a_number_of_its_range_that_depends_on_the_name_alone() -> None:
    line = "H(10-19) H/6 H * H"
    assert resolve(line, "team-a", "nightly") == resolve(line, "team-a", "nightly")
    numbers = [resolve(line, "team-a", f"s{number}").split() for number in range(300)]
    assert {int(minute) for minute, *_ in numbers} == set(range(10, 20))
    assert {hour for _, hour, *_ in numbers} == {f"{first}-23/6" for first in range(6)}
    assert {int(day) for _, _, day, *_ in numbers} == set(range(1, 29))
    assert {int(day) for *_, day in numbers} == set(range(7))
    assert resolve("H * * * *", "team-a", "x") != resolve("H * * * *", "team-b", "x")


def fields(low: int, high: int) -> st.SearchStrategy[str]:
    numbers = st.integers(low, high)
    return st.one_of(
        st.just("*"),
        st.integers(2, 20).map(lambda step: f"*/{step}"),
        numbers.map(str),
        st.tuples(numbers, numbers).map(lambda pair: f"{min(pair)}-{max(pair)}"),
        st.lists(numbers, min_size=2, max_size=3).map(lambda each: ",".join(map(str, each))),
    )


DAYS = st.sampled_from(["*", "*", "*", "*/2", "29", "L", "1,30"])
LINES = st.tuples(
    fields(0, 59), st.one_of(fields(0, 4), fields(0, 23)), DAYS, st.just("*"), st.sampled_from(["*", "*", "0", "1-5"])
).map(" ".join)
TIMES = st.integers(-36 * 3600, 36 * 3600)


@st.composite
def walks(draw: st.DrawFn) -> tuple[Calendar, datetime, datetime, datetime]:
    """A calendar, and an interval near a change of its clocks with a time in it."""
    zone, near = draw(st.sampled_from(sorted(CHANGES.items())))
    lines = draw(st.lists(LINES, min_size=1, max_size=3))
    times = sorted(at(near) + timedelta(seconds=draw(TIMES)) for _ in range(3))
    return calendar(*lines, zone=zone), times[0], times[1], times[2]


def between(found: Calendar, after: datetime, until: datetime) -> list[datetime]:
    return list(itertools.takewhile(lambda tick: tick <= until, found.after(after)))


@settings(max_examples=400, deadline=None)
@given(walks())
def test_an_interval_has_the_same_ticks_wherever_it_is_split_and_in_both_directions(
    walk: tuple[Calendar, datetime, datetime, datetime],
) -> None:
    found, first, middle, last = walk
    whole = between(found, first, last)
    assert whole == sorted(set(whole))
    assert all(first < tick <= last for tick in whole)
    assert between(found, first, middle) + between(found, middle, last) == whole
    assert found.due(first, last, len(whole) + 1) == whole
    assert found.due(first, last, 3) == whole[-3:]


@settings(max_examples=300, deadline=None)
@given(st.text("0123456789*/,-#HLWMON()", max_size=12), st.integers(0, 4))
@example("1,L/2", 2)
@example("5#3/2", 4)
@example("LW/3", 2)
@example("0/99", 0)
def test_any_field_is_read_or_refused(text: str, place: int) -> None:
    line = " ".join(text if place == each else "*" for each in range(5))
    try:
        resolved = resolve(line, "team-a", "x")
    except InvalidSchedule:
        return
    assert "H" not in resolved.replace("THU", "")
    assert next(calendar(resolved).after(at("2026-01-01")), None) is not None


def lines_of(seed: int, count: int) -> Iterator[str]:
    """Lines that the two libraries read alike: without names, `L`, `#`, and with a day of one kind."""
    draw = random.Random(seed)

    def part(low: int, high: int) -> str:
        kind = draw.random()
        if kind < 0.3:
            return "*"
        if kind < 0.5:
            return f"*/{draw.randint(2, 15)}"
        if kind < 0.8:
            return str(draw.randint(low, high))
        # The other library takes 12-12 for every month.
        first = draw.randint(low, high - 1)
        return f"{first}-{draw.randint(first + 1, high)}"

    for _ in range(count):
        day, weekday = draw.choice([("*", "*"), (part(1, 28), "*"), ("*", part(0, 6))])
        yield f"{part(0, 59)} {part(0, 23)} {day} {part(1, 12)} {weekday}"


@pytest.mark.parametrize("zone", ["Etc/UTC", "Asia/Kolkata", "Asia/Tokyo", "America/Phoenix", "Asia/Kathmandu"])
def test_where_the_clocks_do_not_change_another_library_has_the_same_ticks(zone: str) -> None:
    start = at("2026-02-20T07:13:00")
    for line in lines_of(7, 120):
        other = croniter(line, start.astimezone(time_zone(zone)))
        theirs = [other.get_next(datetime).astimezone(UTC) for _ in range(15)]
        assert list(itertools.islice(calendar(line, zone=zone).after(start), 15)) == theirs, line


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "America/Santiago", "Africa/Cairo"])
def test_where_they_change_by_an_hour_cronsim_has_the_same_ticks(zone: str) -> None:
    """It begins days before the change: its walk depends on where it begins in half-hour zones only."""
    start = at("2026-01-01") if zone != "Africa/Cairo" else at("2025-01-01")
    changes = [
        day
        for day in (start + DAY * number for number in range(365))
        if day.astimezone(time_zone(zone)).utcoffset() != (day + DAY).astimezone(time_zone(zone)).utcoffset()
    ]
    assert len(changes) == 2
    for change, line in itertools.product(changes, lines_of(11, 60)):
        after, until = change - DAY, change + 2 * DAY
        theirs: list[datetime] = []
        for tick in CronSim(line, after.astimezone(time_zone(zone))):
            if tick.astimezone(UTC) > until:
                break
            theirs.append(tick.astimezone(UTC))
        assert between(calendar(line, zone=zone), after, until) == theirs, (line, change)
