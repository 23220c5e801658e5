import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from taskflow_api.live import channel as module
from taskflow_api.live.channel import Channel, Gone
from taskflow_core.errors import Unavailable
from tests.unit.taskflow_api.watched import WatchedKube


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("COALESCE_SECONDS", "MIN_BACKOFF", "MAX_BACKOFF"):
        monkeypatch.setattr(module, name, 0.01)


@asynccontextmanager
async def running(kube: WatchedKube, kept: int = 100) -> AsyncIterator[Channel]:
    channel = Channel(kube, "team-a", kept)
    task = asyncio.create_task(channel.run())
    try:
        yield channel
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def versions(channel: Channel, place: int) -> list[int]:
    return [each.version for each in channel.after(place)]


async def test_a_channel_starts_now_and_reports_later_changes() -> None:
    kube = WatchedKube()
    await kube.happens("before")
    async with running(kube) as channel:
        place = await channel.join(None)
        later = await kube.happens("later")
        assert versions(channel, place) == [later]
        assert versions(channel, later) == []
        assert channel.position == later


async def test_listeners_are_woken_by_changes_of_their_tasks() -> None:
    kube = WatchedKube()
    async with running(kube) as channel:
        await channel.join(None)
        with channel.listening() as of_all, channel.listening("a") as of_a, channel.listening("b") as of_b:
            await kube.happens("a")
            assert [of_all.woken.is_set(), of_a.woken.is_set(), of_b.woken.is_set()] == [True, True, False]
            assert not channel.idle
        assert channel.idle


async def test_a_listener_from_before_the_start_gets_all_since_and_one_watch_serves_all() -> None:
    kube = WatchedKube()
    places = [kube.version] + [await kube.happens(f"t{number}") for number in range(6)]
    async with running(kube) as channel:
        joined = await asyncio.gather(*(channel.join(place) for place in places))
        assert joined == places
        for number, place in enumerate(places):
            assert versions(channel, place) == places[number + 1 :]
        # The head, and once further back for all of them.
        assert kube.watches == [places[-1], places[0]]
        later = await kube.happens("later")
        assert versions(channel, places[3]) == [*places[4:], later]


async def test_compacted_changes_are_gone_only_for_listeners_that_need_them() -> None:
    kube = WatchedKube()
    old = await kube.happens("a")
    await kube.happens("b")
    kube.compact()
    async with running(kube) as channel:
        place = await channel.join(None)
        seen = await kube.happens("c")
        with pytest.raises(Gone):
            await channel.join(old)
        assert versions(channel, place) == [seen]
        later = await kube.happens("d")
        await asyncio.sleep(0.1)
        assert versions(channel, place) == [seen, later]
        with pytest.raises(Gone):
            await channel.join(old)


async def test_a_position_in_the_future_is_gone() -> None:
    kube = WatchedKube()
    async with running(kube) as channel:
        with pytest.raises(Gone):
            await channel.join(kube.version + 1000)


async def test_a_listener_too_far_behind_gets_gone() -> None:
    kube = WatchedKube()
    async with running(kube, kept=3) as channel:
        place = await channel.join(None)
        happened = [await kube.happens(f"t{number}") for number in range(5)]
        with pytest.raises(Gone):
            channel.after(place)
        assert versions(channel, happened[1]) == happened[2:]


async def test_a_watch_survives_an_outage_and_reports_a_compaction() -> None:
    kube = WatchedKube()
    async with running(kube) as channel:
        place = await channel.join(None)
        kube.away = True
        missed = await kube.happens("a")
        await asyncio.sleep(0.05)
        kube.away = False
        await asyncio.sleep(0.1)
        assert versions(channel, place) == [missed]

        kube.away = True
        await kube.happens("b")
        await asyncio.sleep(0.05)
        kube.compact()
        last = await kube.happens("c")
        kube.compact()
        kube.away = False
        await asyncio.sleep(0.1)
        with pytest.raises(Gone):
            channel.after(missed)
        assert channel.position == last
        now = await kube.happens("d")
        assert versions(channel, last) == [now]


async def test_a_bookmark_moves_the_position_and_a_broken_object_is_skipped() -> None:
    kube = WatchedKube()
    async with running(kube) as channel:
        place = await channel.join(None)
        assert await kube.bookmark() == channel.position
        kube.past.append({"type": "MODIFIED", "object": {"metadata": {"resourceVersion": "111", "name": "x"}}})
        good = await kube.happens("good")
        assert versions(channel, place) == [good]


async def test_without_an_api_server_join_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "JOIN_SECONDS", 0.05)
    kube = WatchedKube()
    kube.away = True
    async with running(kube) as channel:
        with pytest.raises(Unavailable):
            await channel.join(None)


async def test_a_restart_from_the_past_succeeds_after_an_outage() -> None:
    kube = WatchedKube()
    old = await kube.happens("a")
    missed = await kube.happens("b")
    async with running(kube) as channel:
        await channel.join(None)
        kube.away = True
        joining = asyncio.create_task(channel.join(old))
        await asyncio.sleep(0.1)
        assert not joining.done()
        kube.away = False
        assert await asyncio.wait_for(joining, 5) == old
        await asyncio.sleep(0.05)
        assert versions(channel, old) == [missed]
