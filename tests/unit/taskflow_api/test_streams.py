import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from taskflow_api.app import create_app
from taskflow_api.http.services import Services
from taskflow_api.live import channel, sse, streaming, streams
from taskflow_api.live.hub import Hub
from taskflow_api.wiring import Components
from tests.unit.taskflow_api.fakes import Api, unlimited
from tests.unit.taskflow_api.watched import Stream, WatchedKube

EVENTS = "/v1/namespaces/team-a/events"
ONE = "/v1/namespaces/team-a/tasks/a/events"


class Site(Api):
    """The API with an API server that keeps changes. It can be restarted."""

    def __init__(self) -> None:
        super().__init__()
        self.watched = WatchedKube()
        self.auth._kube = self.watched
        self.restart()

    def restart(self) -> None:
        self.hub = Hub(self.watched, per_caller=3, total=4)
        services = Services(self.watched, self.history, self.objects, self.auth, self.identity.tokens.authenticate)
        self.app = create_app(Components(services, self.identity, self.hub, unlimited()))


@pytest.fixture
async def site(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    for name in ("COALESCE_SECONDS", "MIN_BACKOFF", "MAX_BACKOFF"):
        monkeypatch.setattr(channel, name, 0.01)
    monkeypatch.setattr(streams, "CATCH_UP_SECONDS", 0.2)
    made = Site()
    yield made
    await made.hub.stop()


def events_in(text: str) -> list[tuple[str, int, Any]]:
    """Events of a stream: (event, id, data)."""
    found = []
    for block in text.split("\n\n"):
        fields = dict(line.partition(": ")[::2] for line in block.splitlines() if not line.startswith(":"))
        if "event" in fields:
            found.append((fields["event"], int(fields["id"]), json.loads(fields["data"])))
    return found


async def test_changes_of_a_namespace_are_streamed_as_they_happen(site: Site) -> None:
    stream = Stream(site.app, EVENTS)
    await stream.until("ready")
    assert stream.headers["content-type"].startswith("text/event-stream")
    assert (stream.headers["cache-control"], stream.headers["x-accel-buffering"]) == ("no-cache", "no")
    assert stream.text.startswith("retry: 3000\n\n")
    version = await site.watched.happens("a", "Running", labels={"team": "x"})
    await stream.until("Running")
    kind, place, data = events_in(stream.text)[-1]
    assert (kind, place, data["type"], data["task"]["name"]) == ("task", version, "changed", "a")
    assert data["task"]["labels"] == {"team": "x"}
    await stream.leave()
    assert not site.hub._open


async def test_nothing_is_missed_or_repeated_over_a_restart(site: Site) -> None:
    stream = Stream(site.app, EVENTS)
    await stream.until("ready")
    await site.watched.happens("a", "Queued")
    await stream.until("Queued")
    last = events_in(stream.text)[-1][1]
    site.hub.close()
    await stream.until()
    assert stream.ended
    missed = [await site.watched.happens("a", phase) for phase in ("Running", "Succeeded")]
    await site.hub.stop()
    site.restart()
    again = Stream(site.app, EVENTS, Last_Event_ID=str(last))
    await again.until("Succeeded")
    assert [place for kind, place, _ in events_in(again.text) if kind == "task"] == missed
    await again.leave()


async def test_an_unavailable_position_is_answered_with_a_reset_to_continue_from(site: Site) -> None:
    old = await site.watched.happens("a")
    await site.watched.happens("a")
    site.watched.compact()
    stream = Stream(site.app, EVENTS, Last_Event_ID=str(old))
    await stream.until()
    ((kind, place, data),) = events_in(stream.text)
    assert (stream.status, kind, data["reason"], stream.ended) == (200, "reset", "gone", True)
    later = await site.watched.happens("b")
    again = Stream(site.app, EVENTS, Last_Event_ID=str(place))
    await again.until("task")
    assert [each[1] for each in events_in(again.text) if each[0] == "task"] == [later]
    await again.leave()


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("phase=Failed", ["c"]),
        ("queue=gpu", ["b"]),
        ("handler=a.b", ["a", "b", "c", "end"]),
        ("labelSelector=team%3Dx,!old", ["a"]),
    ],
)
async def test_filters(site: Site, query: str, names: list[str]) -> None:
    stream = Stream(site.app, f"{EVENTS}?{query}")
    await stream.until("ready")
    await site.watched.happens("a", labels={"team": "x"})
    await site.watched.happens("b", queue="gpu", labels={"team": "x", "old": ""})
    await site.watched.happens("c", "Failed")
    await site.watched.happens("end")
    found = [
        data["task"]["name"] for kind, _, data in events_in(await stream.until(f'"{names[-1]}"')) if kind == "task"
    ]
    assert found == names
    await stream.leave()


async def test_the_stream_of_a_task_starts_with_its_state_and_ends_with_it(site: Site) -> None:
    await site.watched.happens("a", "Running")
    stream = Stream(site.app, ONE)
    await stream.until("Running")
    await site.watched.happens("b", "Failed")
    end = await site.watched.happens("a", "Succeeded")
    events = events_in(await stream.until())
    assert [(data["type"], data["task"]["phase"]) for _, _, data in events] == [
        ("current", "Running"),
        ("changed", "Succeeded"),
    ]
    assert stream.ended
    # An EventSource reconnects after every stream until it gets 204.
    again = Stream(site.app, ONE, Last_Event_ID=str(end))
    await again.until()
    assert (again.status, again.text) == (204, "")
    fresh = Stream(site.app, ONE)
    assert events_in(await fresh.until())[0][2]["type"] == "current"


async def test_a_client_that_missed_the_end_of_a_deleted_task_still_receives_it(site: Site) -> None:
    seen = await site.watched.happens("a", "Running")
    await site.watched.happens("a", "Succeeded")
    deleted = await site.watched.happens("a", "Succeeded", "DELETED")
    stream = Stream(site.app, ONE, Last_Event_ID=str(seen))
    events = events_in(await stream.until())
    assert [(data["type"], data["task"]["phase"]) for _, _, data in events] == [
        ("changed", "Succeeded"),
        ("deleted", "Succeeded"),
    ]
    again = Stream(site.app, ONE, Last_Event_ID=str(deleted))
    await again.until()
    assert again.status == 204


async def test_a_missing_task_permission_or_position_is_a_problem(site: Site) -> None:
    answer = await site.call("GET", ONE)
    assert (answer.status, answer.json["code"]) == (404, "not-found")
    answer = await site.call("GET", EVENTS, token="bob-token")
    assert answer.status == 403
    answer = await site.call("GET", EVENTS, Last_Event_ID="17-0")
    assert (answer.status, answer.json["errors"][0]["pointer"]) == (422, "/last-event-id")
    answer = await site.call("GET", EVENTS + "?labelSelector=a%20b")
    assert (answer.status, answer.json["errors"][0]["pointer"]) == (422, "/labelSelector")
    assert not site.hub._open


async def test_head_of_a_stream_ends_with_its_headers_and_frees_its_place(site: Site) -> None:
    async with asyncio.timeout(10):
        # More often than there are places for streams.
        for _ in range(6):
            answer = await site.call("HEAD", EVENTS)
            assert (answer.status, answer.body) == (200, b"")
            assert answer.headers["content-type"].startswith("text/event-stream")


async def test_the_number_of_streams_of_a_caller_is_limited(site: Site) -> None:
    streams = [Stream(site.app, EVENTS) for _ in range(3)]
    for stream in streams:
        await stream.until("ready")
    answer = await site.call("GET", EVENTS)
    assert (answer.status, answer.json["code"], answer.headers["retry-after"]) == (429, "too-many-streams", "10")
    await streams[0].leave()
    another = Stream(site.app, EVENTS)
    await another.until("ready")
    # One watch for all of them.
    assert len(site.watched.watches) == 1
    for stream in (*streams[1:], another):
        await stream.leave()


async def test_a_stream_ends_when_its_caller_loses_the_permission(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "RECHECK_SECONDS", 0.0)
    stream = Stream(site.app, EVENTS)
    await stream.until("ready")

    async def refused(*_: object) -> bool:
        return False

    monkeypatch.setattr(site.auth, "allows", refused)
    await site.watched.happens("a")
    await stream.until()
    assert stream.ended


async def test_a_stream_ends_when_its_token_expires(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "RECHECK_SECONDS", 0.0)
    stream = Stream(site.app, EVENTS)
    await stream.until("ready")

    async def unknown(_: str) -> None:
        return None

    monkeypatch.setattr(site.identity.tokens, "_kubernetes", unknown)
    await site.watched.happens("a")
    await stream.until()
    assert stream.ended


async def test_a_ping_has_the_position_as_its_id(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "PING_SECONDS", 0.02)
    stream = Stream(site.app, EVENTS)
    await stream.until("ready")
    place = await site.watched.bookmark()
    await stream.until(f": ping\nid: {place}\n\n")
    await stream.leave()


async def test_the_last_event_of_a_stream_without_access_is_a_problem(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sse, "RECHECK_SECONDS", 0.0)
    stream = Stream(site.app, EVENTS)
    await stream.until("ready")

    async def refused(*_: object) -> bool:
        return False

    monkeypatch.setattr(site.auth, "allows", refused)
    place = await site.watched.happens("a")
    await stream.until()
    kind, position, problem = events_in(stream.text)[-1]
    assert (kind, position, stream.ended) == ("problem", place, True)
    assert problem == {
        "type": "https://taskflow.dev/problems/access-ended",
        "title": "Forbidden",
        "status": 403,
        "code": "access-ended",
        "detail": "the token is no longer valid, or the caller lost the permission",
    }


async def test_a_slow_listener_is_dropped_with_a_reset(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Stream(site.app, EVENTS)
    await stream.until("ready")
    kept, _ = site.hub._channels["team-a"]
    kept._max_changes = 2
    # More changes at once than the channel buffers.
    site.watched.past += [
        {"type": "MODIFIED", "object": _object(f"t{number}", site.watched.version + number)} for number in range(1, 6)
    ]
    site.watched.version += 5
    await site.watched.bookmark()
    await stream.until()
    assert events_in(stream.text)[-1][0] == "reset"
    assert events_in(stream.text)[-1][1] == site.watched.version


def _object(name: str, version: int) -> dict[str, Any]:
    from tests.unit.taskflow_api.watched import stored  # noqa: PLC0415

    return stored(name, version)


async def test_a_stalled_client_is_disconnected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "STALL_SECONDS", 0.05)

    async def endless() -> AsyncIterator[str]:
        while True:
            yield "x"

    async def stuck(message: Any) -> None:
        if message["type"] == "http.response.body":
            await asyncio.Event().wait()

    await asyncio.wait_for(streaming.StallLimitedResponse(endless()).stream_response(stuck), 5)
