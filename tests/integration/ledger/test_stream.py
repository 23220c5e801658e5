from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
import redis

from taskflow_core.domain import naming
from taskflow_core.domain.event_input import MAX_FIELD_BYTES, Refusal
from taskflow_core.domain.events import EntryId, Origin, Stream
from taskflow_core.domain.naming import keys_of
from taskflow_core.ledger import stream
from taskflow_core.ledger.stream import Read, StreamReader, stream_key, trim_read
from taskflow_core.settings import RedisSettings
from tests.builders import TOKEN_KEY, UID
from tests.integration.ledger.builders import KEYS, NAMESPACE, NOTES, WORKERS, entry, now_ms, operator

pytestmark = pytest.mark.integration
END = "18446744073709551615-18446744073709551615"
OTHER = Stream("team-b", Origin.WORKERS)


def fields(namespace: str = NAMESPACE, **more: Any) -> dict[Any, Any]:
    token = naming.attempt_token(TOKEN_KEY, namespace, UID, 1)
    return {"k": "started", "uid": UID, "att": "1", "tok": token, "w": "pod-1", "ts": "5", "p": "{}"} | more


def add(raw: redis.Redis, count: int = 1, namespace: str = NAMESPACE, **more: Any) -> list[str]:
    pipe = raw.pipeline(transaction=False)
    for _ in range(count):
        pipe.xadd(keys_of(namespace).events, fields(namespace, **more))
    return [str(each) for each in pipe.execute()]


def ids(read: Read) -> list[str]:
    return [event.id for event in read.events]


def entries(of: Stream, names: Iterable[str]) -> list[EntryId]:
    return [EntryId(of, each) for each in names]


async def one(reader: StreamReader, of: Stream = WORKERS) -> Read:
    (found,) = await reader.read([of])
    return found


async def test_a_new_group_reads_what_was_told_before_it(settings: RedisSettings, raw: redis.Redis) -> None:
    known = add(raw, 3)
    async with operator(settings) as side:
        reader = side.reader()
        assert "NOGROUP" in (await one(reader)).problem
        await side.namespaces.ensure([NAMESPACE])
        read = await one(reader)
    assert (ids(read), read.refused, read.last, read.problem) == (known, (), True, "")


async def test_what_was_not_acknowledged_comes_first_after_a_restart(
    settings: RedisSettings, raw: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "_STEPS", 1)
    known = add(raw, 10)
    async with operator(settings) as side:
        await side.namespaces.ensure([NAMESPACE])
        reader = side.reader()
        assert [len((await one(reader)).events) for _ in range(3)] == [4, 4, 2]
        await reader.acknowledge(entries(WORKERS, [known[1]]))
        await reader.acknowledge([])
        new = add(raw, 1)
    async with operator(settings) as side:
        reader = side.reader()
        reader.start_over(WORKERS)
        reads = [await one(reader) for _ in range(4)]
    assert [each for read in reads for each in ids(read)] == [known[0], *known[2:], *new]
    # Nobody has read everything before the backlog is read.
    assert [read.last for read in reads] == [False, False, False, True]


async def test_two_groups_read_the_same_events(settings: RedisSettings, raw: redis.Redis) -> None:
    known = add(raw, 2)
    async with operator(settings) as side:
        await side.namespaces.ensure([NAMESPACE])
        for group in ("cr", "pg"):
            assert ids(await one(side.reader(group))) == known


async def test_only_the_history_reads_what_the_operator_says(settings: RedisSettings, raw: redis.Redis) -> None:
    async with operator(settings) as side:
        await side.ledger.enqueue([entry()])
        assert side.reader("cr").streams_of(NAMESPACE) == (WORKERS,)
        history = side.reader("pg")
        assert history.streams_of(NAMESPACE) == (WORKERS, NOTES)
        reads = await history.read(history.streams_of(NAMESPACE))
    assert [[event.kind for event in read.events] for read in reads] == [[], ["queued"]]


async def test_a_read_without_news_ends_empty(settings: RedisSettings) -> None:
    async with operator(settings) as side:
        await side.namespaces.ensure([NAMESPACE])
        assert await one(side.reader()) == Read(WORKERS)
        assert await side.reader().read([]) == []


async def test_a_stream_that_vanished_is_a_problem_of_its_own(settings: RedisSettings, raw: redis.Redis) -> None:
    async with operator(settings) as side:
        await side.namespaces.ensure([NAMESPACE, "team-b"])
        raw.delete(KEYS.events)
        known = add(raw, 2, "team-b")
        gone, there = await side.reader().read([WORKERS, OTHER])
        assert "NOGROUP" in gone.problem
        assert gone.last
        assert ids(there) == known
        raw.set(KEYS.events, "x")
        gone, _ = await side.reader().read([WORKERS, OTHER])
        assert "WRONGTYPE" in gone.problem


async def test_entries_that_are_no_events_are_told_and_stop_no_others(
    settings: RedisSettings, raw: redis.Redis
) -> None:
    bad = add(raw, k="exploded") + add(raw, tok="x") + [str(raw.xadd(KEYS.events, {"hello": "world"}))]
    bad += add(raw, k="queued") + add(raw, k="progress", p="[" * 5000) + add(raw, uid=b"\xff\xfe")
    (good,) = add(raw)
    async with operator(settings) as side:
        await side.namespaces.ensure([NAMESPACE])
        read = await one(side.reader())
    assert ids(read) == [good]
    assert [each.entry for each in read.refused] == entries(WORKERS, bad)
    assert [each.reason for each in read.refused] == [
        Refusal.KIND,
        Refusal.TOKEN,
        Refusal.KIND,
        Refusal.KIND,
        Refusal.PAYLOAD,
        Refusal.FIELDS,
    ]


async def test_a_field_that_is_too_long_is_left_out_and_takes_no_memory(
    settings: RedisSettings, raw: redis.Redis
) -> None:
    (refused,) = add(raw, k="progress", p=b"x" * 8 * 1024 * 1024)
    (junk,) = add(raw, uid=b"u" * 8 * 1024 * 1024)
    (good,) = add(raw, x=b"y" * 8 * 1024 * 1024)
    (fits,) = add(raw, p="{" + " " * (MAX_FIELD_BYTES - 2) + "}")
    async with operator(settings) as side:
        await side.namespaces.ensure([NAMESPACE])
        before = output_bytes(raw)
        read = await one(side.reader())
        assert output_bytes(raw) - before < 2 * MAX_FIELD_BYTES
    assert ids(read) == [good, fits]
    assert [(each.entry.id, each.reason) for each in read.refused] == [
        (refused, Refusal.PAYLOAD),
        (junk, Refusal.FIELDS),
    ]


def output_bytes(raw: redis.Redis) -> int:
    found: Any = raw.info("stats")
    return int(found["total_net_output_bytes"])


async def test_an_entry_of_very_many_fields_is_none(settings: RedisSettings, raw: redis.Redis) -> None:
    pairs = [text for number in range(100_000) for text in (f"f{number}", "v")]
    bad = str(raw.execute_command("XADD", KEYS.events, "*", *pairs))  # type: ignore[no-untyped-call]
    # The same name many times, and ours behind the sixteen that are looked at.
    ours = [text for pair in fields().items() for text in pair]
    late = str(raw.execute_command("XADD", KEYS.events, "*", *["k", "started"] * 50_000, *ours))  # type: ignore[no-untyped-call]
    (good,) = add(raw)
    async with operator(settings) as side:
        await side.namespaces.ensure([NAMESPACE])
        before = output_bytes(raw)
        read = await one(side.reader())
        assert output_bytes(raw) - before < 100_000
    assert ids(read) == [good]
    assert [each.entry.id for each in read.refused] == [bad, late]


async def test_a_read_ends_after_so_many_bytes_and_goes_on_there(settings: RedisSettings, raw: redis.Redis) -> None:
    text = "{" + " " * 200_000 + "}"
    known = add(raw, 64, p=text)
    async with operator(settings) as side:
        await side.namespaces.ensure([NAMESPACE])
        reader = side.reader()
        reads = [await one(reader)]
        while not reads[-1].last:
            reads.append(await one(reader))
        assert [len(read.events) for read in reads[:2]] == [8, 8]
        reader.start_over(WORKERS)
        again = [await one(reader) for _ in reads]
    assert [each for read in reads for each in ids(read)] == known
    assert [each for read in again for each in ids(read)] == known


async def test_the_flood_of_one_namespace_leaves_room_for_the_others(settings: RedisSettings, raw: redis.Redis) -> None:
    add(raw, 5000)
    names = [f"ns-{number}" for number in range(stream.STREAMS_PER_READ - 1)]
    for name in names:
        add(raw, 1, name)
    async with operator(settings) as side:
        await side.namespaces.ensure([NAMESPACE, *names])
        reads = await side.reader().read([WORKERS, *(Stream(name, Origin.WORKERS) for name in names)])
    assert 100 < len(reads[0].events) <= 512
    assert not reads[0].last
    assert [(len(read.events), read.last) for read in reads[1:]] == [(1, True)] * len(names)


async def test_streams_of_two_namespaces_have_entries_of_the_same_id(settings: RedisSettings, raw: redis.Redis) -> None:
    for name in (NAMESPACE, "team-b"):
        for number in (1, 2):
            raw.xadd(keys_of(name).events, fields(name), id=f"5-{number}")
    async with operator(settings) as side:
        await side.namespaces.ensure([NAMESPACE, "team-b"])
        reader = side.reader()
        reads = await reader.read([WORKERS, OTHER])
        assert [[str(event.entry) for event in read.events] for read in reads] == [
            ["5-1@team-a/workers", "5-2@team-a/workers"],
            ["5-1@team-b/workers", "5-2@team-b/workers"],
        ]
        await reader.acknowledge([EntryId(WORKERS, "5-1"), EntryId(OTHER, "5-2")])
        reader.start_over(WORKERS)
        reader.start_over(OTHER)
        assert [ids(read) for read in await reader.read([WORKERS, OTHER])] == [["5-2"], ["5-1"]]


async def test_an_event_that_was_copied_to_another_namespace_is_refused(
    settings: RedisSettings, raw: redis.Redis
) -> None:
    raw.xadd(keys_of("team-b").events, fields(NAMESPACE))
    raw.xadd(KEYS.notes, fields(NAMESPACE))
    async with operator(settings) as side:
        await side.namespaces.ensure([NAMESPACE, "team-b"])
        reads = await side.reader("pg").read([OTHER, NOTES])
    assert [[each.reason for each in read.refused] for read in reads] == [[Refusal.TOKEN], [Refusal.KIND]]


async def test_a_backlog_whose_entries_were_trimmed_can_be_acknowledged(
    settings: RedisSettings, raw: redis.Redis
) -> None:
    known = add(raw, 2)
    async with operator(settings) as side:
        await side.namespaces.ensure([NAMESPACE])
        reader = side.reader()
        await one(reader)
        raw.xtrim(KEYS.events, maxlen=0, approximate=False)
        reader.start_over(WORKERS)
        read = await one(reader)
        assert [each.entry.id for each in read.refused] == known
        await reader.acknowledge(each.entry for each in read.refused)
    pending: Any = raw.xpending(KEYS.events, "cr")
    assert pending["pending"] == 0


async def test_what_is_acknowledged_in_a_stream_that_is_gone_stops_no_others(
    settings: RedisSettings, raw: redis.Redis
) -> None:
    known = add(raw, 1)
    async with operator(settings) as side:
        await side.namespaces.ensure([NAMESPACE])
        await one(side.reader())
        raw.set(stream_key(OTHER), "x")
        gone = EntryId(Stream("gone", Origin.WORKERS), "1-1")
        await side.reader().acknowledge([EntryId(OTHER, "1-1"), gone, *entries(WORKERS, known)])
    pending: Any = raw.xpending(KEYS.events, "cr")
    assert pending["pending"] == 0


async def test_only_what_all_groups_have_acknowledged_is_trimmed(
    settings: RedisSettings, raw: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "KEPT_MS", -1000)
    known = add(raw, 1000)

    async def trim() -> int:
        await trim_read(side.client, [WORKERS, NOTES, Stream("gone", Origin.WORKERS)], now_ms(raw))
        return int(str(raw.xlen(KEYS.events)))

    async with operator(settings) as side:
        readers = [side.reader(group) for group in stream.GROUPS]
        assert await trim() == 1000
        await side.namespaces.ensure([NAMESPACE])
        for reader in readers:
            while (read := await one(reader)).events:
                await reader.acknowledge(event.entry for event in read.events if event.id != known[600])
        # Redis drops whole nodes of a hundred.
        assert 400 <= await trim() <= 500
        for reader in readers:
            assert not (await look(reader, raw)).gap
            reader.start_over(WORKERS)
            assert ids(await one(reader)) == [known[600]]
            await reader.acknowledge(entries(WORKERS, [known[600]]))
        monkeypatch.setattr(stream, "KEPT_MS", 60_000)
        assert await trim() >= 400
        monkeypatch.setattr(stream, "KEPT_MS", -1000)
        assert 1 <= await trim() <= 100
        for reader in readers:
            assert not (await look(reader, raw)).gap
        add(raw, 3)
        for reader in readers:
            assert len((await one(reader)).events) == 3


async def look(reader: StreamReader, raw: redis.Redis, *, sizes: bool = False) -> stream.Standing:
    return (await reader.look([NAMESPACE], now_ms(raw), sizes=sizes))[0]


async def test_a_stream_that_was_read_has_no_gap(settings: RedisSettings, raw: redis.Redis) -> None:
    add(raw, 50)
    async with operator(settings) as side:
        await side.namespaces.ensure([NAMESPACE])
        reader = side.reader()
        found = await look(reader, raw)
        assert (found.pending, found.unread, found.gap, found.problem) == (0, 50, False, "")
        await one(reader)
        found = await look(reader, raw)
        assert (found.pending, found.unread, found.gap) == (50, 0, False)
        assert 0 <= found.age_ms < 60_000
        raw.xtrim(KEYS.events, maxlen=10, approximate=False)
        assert not (await look(reader, raw)).gap
        raw.xtrim(KEYS.events, maxlen=0, approximate=False)
        assert not (await look(reader, raw)).gap


async def test_a_stream_that_was_trimmed_past_the_reader_has_a_gap(settings: RedisSettings, raw: redis.Redis) -> None:
    add(raw, 5)
    async with operator(settings) as side:
        await side.namespaces.ensure([NAMESPACE])
        reader = side.reader()
        await one(reader)
        assert not (await look(reader, raw)).gap
        add(raw, 300)
        raw.xtrim(KEYS.events, maxlen=100, approximate=False)
        assert (await look(reader, raw)).gap
        while not (await one(reader)).last:
            pass
        assert not (await look(reader, raw)).gap
        add(raw, 3)
        raw.xtrim(KEYS.events, maxlen=0, approximate=False)
        assert (await look(reader, raw)).gap, "all of it is gone"


@pytest.mark.parametrize("case", ["no stream", "no group", "another type", "the end", "the future", "too large"])
async def test_a_stream_that_cannot_go_on_has_a_problem(
    settings: RedisSettings, raw: redis.Redis, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    async with operator(settings) as side:
        await side.namespaces.ensure([NAMESPACE, "team-b"])
        if case == "no stream":
            raw.delete(KEYS.events)
        elif case == "no group":
            raw.xgroup_destroy(KEYS.events, "cr")
        elif case == "another type":
            raw.set(KEYS.events, "x")
        elif case == "the end":
            raw.xadd(KEYS.events, fields(), id=END)
        elif case == "the future":
            raw.xadd(KEYS.events, fields(), id=f"{now_ms(raw) + 2 * stream.AHEAD_MS}-1")
        else:
            monkeypatch.setattr(stream, "MAX_STREAM_BYTES", 1_000_000)
            add(raw, 20, p=b"x" * 100_000)
            assert (await look(side.reader(), raw)).problem == ""
        here, there = await side.reader().look([NAMESPACE, "team-b"], now_ms(raw), sizes=True)
        assert here.problem
        assert (there.problem, there.gap) == ("", False)
        await side.namespaces.reset(NAMESPACE)
        assert (await look(side.reader(), raw, sizes=True)).problem == ""
        known = add(raw, 1)
        assert ids(await one(side.reader())) == known


async def test_an_id_a_little_ahead_is_no_problem_and_what_follows_is_read(
    settings: RedisSettings, raw: redis.Redis
) -> None:
    ahead = f"{now_ms(raw) + 3_600_000}-1"
    raw.xadd(KEYS.events, fields(), id=ahead)
    known = [ahead, *add(raw, 2)]
    async with operator(settings) as side:
        await side.namespaces.ensure([NAMESPACE])
        found = await look(side.reader(), raw)
        assert (found.problem, found.age_ms) == ("", 0)
        assert ids(await one(side.reader())) == known


async def test_a_stream_of_one_entry_of_many_fields_is_looked_at(settings: RedisSettings, raw: redis.Redis) -> None:
    add(raw, 1, x=b"\xff" * 8_000_000)
    async with operator(settings) as side:
        await side.namespaces.ensure([NAMESPACE])
        before = output_bytes(raw)
        found = await look(side.reader(), raw, sizes=True)
        assert (found.problem, found.unread) == ("", 1)
        assert output_bytes(raw) - before < 100_000
