"""Namespaces on a real Redis: opened before anything is entered, so that what is missing later was lost."""

from __future__ import annotations

from typing import Any

import pytest
import redis

from taskflow_core.broker import acl
from taskflow_core.domain import naming
from taskflow_core.domain.naming import keys_of
from taskflow_core.errors import Unavailable
from taskflow_core.ledger.namespaces import Namespaces
from taskflow_core.settings import RedisSettings
from tests.integration.ledger.builders import KEYS, NAMESPACE, WORKERS, entry, epoch, operator
from tests.redis_users import PASSWORD, as_user

pytestmark = pytest.mark.integration


class Heard:
    """What a `Namespaces` tells its listeners."""

    def __init__(self, namespaces: Namespaces) -> None:
        self.lost: list[str] = []
        self.unmirrored: list[str] = []
        namespaces.lost.append(self.lost.extend)
        namespaces.unmirrored.append(self.unmirrored.extend)

    def taken(self) -> tuple[list[str], list[str]]:
        found = self.lost[:], self.unmirrored[:]
        self.lost.clear()
        self.unmirrored.clear()
        return found


def groups(raw: redis.Redis, key: str) -> set[str]:
    found: Any = raw.xinfo_groups(key)
    return {each["name"] for each in found}


async def test_a_new_namespace_is_opened_before_anything_is_entered_and_is_not_lost(
    settings: RedisSettings, raw: redis.Redis
) -> None:
    async with operator(settings) as side:
        heard = Heard(side.namespaces)
        await side.ledger.enqueue([entry()])
        assert heard.taken() == ([], [NAMESPACE])
        assert set(side.namespaces.known) == {NAMESPACE}
        await side.ledger.enqueue([entry(2)])
        await side.namespaces.ensure([NAMESPACE])
        assert heard.taken() == ([], [])
    assert raw.smembers(naming.KEY_NAMESPACES) == {NAMESPACE}
    assert (groups(raw, KEYS.events), groups(raw, KEYS.notes)) == ({"cr", "pg"}, {"pg"})
    assert raw.get(KEYS.unmirrored) == epoch(raw) != ""


async def test_a_restart_finds_what_was_registered_and_the_mark_stays_until_it_was_mirrored(
    settings: RedisSettings, raw: redis.Redis
) -> None:
    async with operator(settings) as side:
        await side.namespaces.ensure([NAMESPACE, "team-b"])
        await side.namespaces.mirrored(side.namespaces.marks_of(["team-b"]))
    async with operator(settings) as side:
        heard = Heard(side.namespaces)
        await side.namespaces.load()
        assert set(side.namespaces.known) == {NAMESPACE, "team-b"}
        assert heard.taken() == ([], [NAMESPACE])
        await side.namespaces.mirrored(side.namespaces.marks_of([NAMESPACE, "team-b"]))
        assert side.namespaces.marks_of([NAMESPACE]) == []
    assert raw.exists(KEYS.unmirrored) == 0
    async with operator(settings) as side:
        heard = Heard(side.namespaces)
        await side.namespaces.load()
        assert heard.taken() == ([], [])


async def test_a_namespace_that_was_registered_and_has_no_keys_lost_them(
    settings: RedisSettings, raw: redis.Redis
) -> None:
    async with operator(settings) as side:
        await side.namespaces.ensure([NAMESPACE, "team-b"])
    raw.delete(KEYS.epoch, KEYS.events, KEYS.notes)
    async with operator(settings) as side:
        heard = Heard(side.namespaces)
        await side.namespaces.load()
        assert heard.lost == [NAMESPACE]
        assert NAMESPACE in heard.unmirrored
    assert groups(raw, KEYS.events) == {"cr", "pg"}


async def test_after_a_flush_all_that_were_known_lost_their_keys_and_are_open_again(
    settings: RedisSettings, raw: redis.Redis
) -> None:
    async with operator(settings) as side:
        heard = Heard(side.namespaces)
        await side.namespaces.ensure([NAMESPACE, "team-b"])
        before = epoch(raw)
        heard.taken()
        raw.flushall()
        assert await side.ledger.begin_epoch("e")
        await side.namespaces.data_lost([NAMESPACE, "team-c"])
        every = [NAMESPACE, "team-b", "team-c"]
        assert heard.taken() == (every, every)
        assert epoch(raw) not in ("", before)
        await side.namespaces.data_lost([])
        assert heard.lost == []
    assert raw.smembers(naming.KEY_NAMESPACES) == set(every)


async def test_a_reset_makes_the_streams_anew_and_leaves_what_is_in_flight(
    settings: RedisSettings, raw: redis.Redis
) -> None:
    async with operator(settings) as side:
        heard = Heard(side.namespaces)
        await side.ledger.enqueue([entry()])
        await side.namespaces.ensure(["team-b"])
        other = str(raw.get(keys_of("team-b").epoch))
        before = epoch(raw)
        raw.xadd(KEYS.events, {"k": "x"}, id="18446744073709551615-18446744073709551615")
        heard.taken()
        assert await side.namespaces.reset(NAMESPACE)
        assert heard.taken() == ([NAMESPACE], [NAMESPACE])
    assert (raw.xlen(KEYS.events), raw.xlen(KEYS.notes), raw.zcard(KEYS.ledger)) == (0, 0, 1)
    assert epoch(raw) not in ("", before)
    assert raw.get(keys_of("team-b").epoch) == other
    raw.xadd(KEYS.events, {"k": "x"})


async def test_what_was_told_after_everything_was_lost_is_not_deleted_by_a_reset(
    settings: RedisSettings, raw: redis.Redis
) -> None:
    async with operator(settings) as side:
        heard = Heard(side.namespaces)
        await side.ledger.enqueue([entry()])
        heard.taken()
        raw.flushall()
        # A worker that went on tells how its attempt ended.
        raw.xadd(KEYS.events, {"k": "x"})
        assert not await side.namespaces.reset(NAMESPACE)
        assert heard.taken() == ([NAMESPACE], [NAMESPACE])
        (read,) = await side.reader().read([WORKERS])
    assert (raw.xlen(KEYS.events), len(read.refused)) == (1, 1)


async def test_keys_of_another_type_are_made_anew_and_hold_up_no_other(
    settings: RedisSettings, raw: redis.Redis
) -> None:
    raw.set(KEYS.events, "x")
    async with operator(settings) as side:
        with pytest.raises(Unavailable, match="team-a"):
            await side.namespaces.ensure([NAMESPACE, "team-b"])
        assert set(side.namespaces.known) == {"team-b"}
        await side.namespaces.ensure([NAMESPACE, "team-b"])
    assert groups(raw, KEYS.events) == {"cr", "pg"}


async def test_a_stream_that_was_written_before_it_was_opened_keeps_its_entries(
    settings: RedisSettings, raw: redis.Redis
) -> None:
    raw.xadd(KEYS.events, {"k": "x"})
    async with operator(settings) as side:
        await side.namespaces.ensure([NAMESPACE])
    assert raw.xlen(KEYS.events) == 1


async def test_a_gap_is_marked_and_a_later_mark_is_not_taken_away_by_an_earlier_one(
    settings: RedisSettings, raw: redis.Redis
) -> None:
    async with operator(settings) as side:
        heard = Heard(side.namespaces)
        await side.namespaces.ensure([NAMESPACE])
        earlier = side.namespaces.marks_of([NAMESPACE])
        heard.taken()
        await side.namespaces.trimmed(NAMESPACE, unapplied=False)
        assert heard.taken() == ([], [NAMESPACE])
        await side.namespaces.mirrored(earlier)
        assert raw.exists(KEYS.unmirrored) == 1
        await side.namespaces.trimmed(NAMESPACE, unapplied=True)
        assert heard.taken() == ([NAMESPACE], [NAMESPACE])
        await side.namespaces.mirrored(side.namespaces.marks_of([NAMESPACE]))
    assert raw.exists(KEYS.unmirrored) == 0


async def test_without_memory_nothing_is_open_and_no_stream_is_deleted(
    settings: RedisSettings, raw: redis.Redis
) -> None:
    raw.xadd(KEYS.events, {"k": "x"})
    raw.config_set("maxmemory", "1")
    try:
        async with operator(settings) as side:
            with pytest.raises(Unavailable, match=r"OOM|memory"):
                await side.namespaces.ensure([NAMESPACE])
            assert list(side.namespaces.known) == []
    finally:
        raw.config_set("maxmemory", "0")
    assert raw.xlen(KEYS.events) == 1


async def test_without_rights_no_stream_is_deleted_and_none_is_made_anew(
    settings: RedisSettings, raw: redis.Redis
) -> None:
    raw.xadd(KEYS.events, {"k": "x"})
    rules = [each for each in acl.operator_rules(PASSWORD) if "+evalsha +watch" not in each]
    lesser = as_user(settings, raw, "lesser", [*rules, "(~tf:* +@write +@read -@scripting)"])
    async with operator(lesser) as side:
        with pytest.raises(Unavailable):
            await side.namespaces.ensure([NAMESPACE])
        with pytest.raises(Unavailable):
            await side.reader().look([NAMESPACE], 0)
    assert raw.xlen(KEYS.events) == 1
