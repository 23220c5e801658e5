from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskflow_api.live import log_ranges, logs
from taskflow_core.blobs.store import ObjectInfo
from tests.unit.taskflow_api.fakes import UID
from tests.unit.taskflow_api.test_streams import Site
from tests.unit.taskflow_api.watched import Stream

LOGS = "/v1/namespaces/team-a/tasks/a/logs"


def key(attempt: int, number: int) -> str:
    return f"team-a/{UID}/{attempt}/logs/{number:06d}.log"


@pytest.fixture
async def site(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    monkeypatch.setattr(logs, "POLL_SECONDS", 0.02)
    made = Site()
    made.objects.stored = {key(1, 1): b"one\ntwo\n", key(1, 2): b"three\n", key(1, 3): b"four"}
    await made.watched.happens("a", "Succeeded")
    yield made
    await made.hub.stop()


async def test_a_log_is_all_its_chunks(site: Site) -> None:
    answer = await site.call("GET", LOGS)
    assert (answer.status, answer.body) == (200, b"one\ntwo\nthree\nfour")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert (answer.headers["accept-ranges"], answer.headers["content-length"]) == ("bytes", "18")
    assert not site.hub._open


@pytest.mark.parametrize(
    ("asked", "status", "body", "told"),
    [
        ("bytes=0-3", 206, b"one\n", "bytes 0-3/18"),
        ("bytes=6-9", 206, b"o\nth", "bytes 6-9/18"),
        ("bytes=14-", 206, b"four", "bytes 14-17/18"),
        ("bytes=-5", 206, b"\nfour", "bytes 13-17/18"),
        ("bytes=-99", 206, b"one\ntwo\nthree\nfour", "bytes 0-17/18"),
        ("bytes=10-99", 206, b"ree\nfour", "bytes 10-17/18"),
        ("bytes=0-1,3-4", 200, b"one\ntwo\nthree\nfour", None),
        ("bytes=5-2", 200, b"one\ntwo\nthree\nfour", None),
        ("lines=1-2", 200, b"one\ntwo\nthree\nfour", None),
    ],
)
async def test_ranges(site: Site, asked: str, status: int, body: bytes, told: str | None) -> None:
    answer = await site.call("GET", LOGS, Range=asked)
    assert (answer.status, answer.body, answer.headers.get("content-range")) == (status, body, told)


@pytest.mark.parametrize("asked", ["bytes=18-", "bytes=18-20", "bytes=-0"])
async def test_a_range_of_nothing_is_416(site: Site, asked: str) -> None:
    answer = await site.call("GET", LOGS, Range=asked)
    assert (answer.status, answer.json["code"]) == (416, "range-not-satisfiable")
    assert answer.headers["content-range"] == "bytes */18"


@pytest.mark.parametrize(
    ("lines", "body"),
    [(0, b""), (1, b"four"), (2, b"three\nfour"), (3, b"two\nthree\nfour"), (9, b"one\ntwo\nthree\nfour")],
)
async def test_the_last_lines(site: Site, lines: int, body: bytes) -> None:
    answer = await site.call("GET", f"{LOGS}?tail={lines}")
    assert (answer.status, answer.body) == (200, body)


async def test_a_missing_log_is_404_and_a_bad_combination_422(site: Site) -> None:
    assert (await site.call("GET", LOGS + "?attempt=2")).status == 404
    assert (await site.call("GET", LOGS.replace("/a/", "/b/"))).status == 404
    assert (await site.call("GET", LOGS, token="bob-token")).status == 403
    site.objects.stored.clear()
    answer = await site.call("GET", LOGS)
    assert (answer.status, answer.json["code"]) == (404, "not-found")
    assert (await site.call("GET", LOGS + "?follow=true", Range="bytes=0-")).status == 422
    assert not site.hub._open


async def test_the_previous_attempt_is_shown_until_a_retry_has_a_log(site: Site) -> None:
    await site.watched.happens("a", "Pending", attempt=2)
    answer = await site.call("GET", LOGS)
    assert (answer.status, answer.headers["taskflow-attempt"]) == (200, "1")
    assert (await site.call("GET", LOGS + "?attempt=2")).status == 404
    site.objects.stored[key(2, 1)] = b"again\n"
    answer = await site.call("GET", LOGS)
    assert (answer.body, answer.headers["taskflow-attempt"]) == (b"again\n", "2")


async def test_it_is_followed_over_a_retry_to_the_end_of_the_task(site: Site) -> None:
    site.objects.stored = {key(1, 1): b"first\n"}
    await site.watched.happens("a", "Running")
    stream = Stream(site.app, LOGS + "?follow=true")
    await stream.until("first\n")
    site.objects.stored[key(1, 1)] += b"second\n"
    await stream.until("second\n")
    site.objects.stored |= {key(1, 2): b"third\n", key(2, 1): b"again\n"}
    await site.watched.happens("a", "Running", attempt=2)
    await stream.until("again\n")
    site.objects.stored[key(2, 1)] += b"done\n"
    await site.watched.happens("a", "Succeeded", attempt=2)
    assert await stream.until() == "first\nsecond\nthird\nagain\ndone\n"
    assert stream.ended


async def test_one_attempt_is_followed_to_its_own_end(site: Site) -> None:
    site.objects.stored = {key(1, 1): b"one\ntwo\n"}
    await site.watched.happens("a", "Running")
    stream = Stream(site.app, LOGS + "?follow=true&attempt=1&tail=1")
    await stream.until("two\n")
    site.objects.stored[key(2, 1)] = b"again\n"
    await site.watched.happens("a", "Running", attempt=2)
    assert await stream.until() == "two\n"


async def test_a_log_is_followed_before_it_begins_and_to_the_end_of_a_deleted_task(site: Site) -> None:
    site.objects.stored = {}
    await site.watched.happens("a", "Queued")
    stream = Stream(site.app, LOGS + "?follow=true")
    site.objects.stored = {key(1, 1): b"x\n"}
    await stream.until("x\n")
    await site.watched.happens("a", "Running", "DELETED")
    assert await stream.until() == "x\n"
    assert stream.ended


LINES = st.lists(st.binary(max_size=5).map(lambda line: line.replace(b"\n", b"") + b"\n"), max_size=8)


@given(st.lists(LINES, max_size=5), st.integers(0, 60), st.integers(0, 60))
def test_pieces_cover_exactly_the_range(chunks: list[list[bytes]], first: int, end: int) -> None:
    content = {f"{number:02}": b"".join(lines) for number, lines in enumerate(chunks)}
    infos = [ObjectInfo(name, len(text), "", datetime(2026, 1, 1, tzinfo=UTC), None) for name, text in content.items()]
    read = b"".join(content[p.key][p.start : p.start + p.length] for p in log_ranges.pieces(infos, first, end))
    assert read == b"".join(content.values())[first:end]


@given(LINES, st.integers(1, 12))
def test_the_tail_is_the_last_lines(lines: list[bytes], wanted: int) -> None:
    content = b"".join(lines)
    if content:
        start, found = log_ranges.tail_start(content, wanted)
        assert content[start:] == b"".join(lines[-wanted:])
        assert found >= min(wanted, len(lines))
