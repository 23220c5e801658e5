import base64
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import pytest

from taskflow_api.http.cursors import BadCursor, decode, encode
from taskflow_core.errors import Unavailable
from tests.unit.taskflow_api.fake_history import CREATED
from tests.unit.taskflow_api.fakes import UID, Api
from tests.unit.taskflow_api.rows import row

TASKS = "/v1/namespaces/team-a/tasks"
BODY = {"name": "x", "labels": {"team": "a"}, "spec": {"handler": "a.b", "retryPolicy": {"maxAttempts": 2}}}


async def test_a_task_is_created_as_it_was_sent_and_defaults_are_left_to_kubernetes() -> None:
    api = Api()
    answer = await api.call("POST", TASKS, BODY)
    assert answer.status == 201
    assert answer.headers["location"] == TASKS + "/x"
    assert answer.headers["etag"] == '"7"'
    assert answer.json["live"] is True
    method, path, sent = api.kube.calls[-1]
    assert (method, path) == ("POST", "/apis/taskflow.dev/v1alpha1/namespaces/team-a/tasks")
    assert sent["metadata"] == {"name": "x", "labels": {"team": "a"}}
    assert sent["spec"] == BODY["spec"]


@pytest.mark.parametrize(
    ("header", "kept"),
    [
        ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", True),
        ("00-00000000000000000000000000000000-b7ad6b7169203331-01", False),
        ("not a trace", False),
    ],
)
async def test_a_valid_traceparent_is_stored_and_an_invalid_one_ignored(header: str, kept: bool) -> None:
    api = Api()
    answer = await api.call("POST", TASKS, BODY, traceparent=header)
    assert answer.status == 201
    annotations = api.kube.calls[-1][2]["metadata"].get("annotations")
    assert annotations == ({"taskflow.dev/traceparent": header} if kept else None)


async def test_a_generated_name_is_in_the_location_header() -> None:
    answer = await Api().call("POST", TASKS, {"generateName": "job-", "spec": {"handler": "a"}})
    assert answer.headers["location"] == TASKS + "/job-abcde"


async def test_a_live_task_has_its_attempts_and_timeline() -> None:
    api = Api()
    await api.call("POST", TASKS, BODY)
    answer = await api.call("GET", TASKS + "/x")
    assert (answer.status, answer.headers["etag"]) == (200, '"7.1"')
    body = answer.json
    assert (body["live"], body["history"], body["uid"], body["labels"]) == (True, "available", UID, {"team": "a"})
    assert body["attempts"][0]["worker"] == "w"


async def test_without_postgresql_a_live_task_has_no_history() -> None:
    api = Api()
    await api.call("POST", TASKS, BODY)
    api.history.failure = Unavailable("away")
    answer = await api.call("GET", TASKS + "/x")
    assert answer.status == 200
    body = answer.json
    assert (body["history"], body["attempts"], body["timeline"]) == ("unavailable", None, None)
    assert (await api.call("GET", TASKS + "/gone")).status == 503
    assert (await api.call("GET", TASKS)).status == 503


async def test_a_task_that_is_gone_is_shown_from_the_history() -> None:
    api = Api()
    api.history.rows = [row(1, name="x", deleted_at=CREATED)]
    answer = await api.call("GET", TASKS + "/x")
    assert (answer.status, answer.json["live"], answer.json["phase"]) == (200, False, "Succeeded")
    assert "etag" not in answer.headers
    assert (await api.call("GET", TASKS + "/y")).status == 404


async def test_a_deleted_task_is_no_content_and_an_absent_one_not_found() -> None:
    api = Api()
    await api.call("POST", TASKS, BODY)
    answer = await api.call("DELETE", TASKS + "/x")
    assert (answer.status, answer.body) == (204, b"")
    assert (await api.call("DELETE", TASKS + "/x")).status == 404


async def test_cursors_lead_through_all_tasks_once() -> None:
    api = Api()
    api.history.rows = [row(n, created_at=CREATED + timedelta(microseconds=n // 3)) for n in range(25)]
    url, seen = TASKS + "?limit=10&queue=default", []
    for expected in (10, 10, 5):
        answer = await api.call("GET", url)
        items = answer.json["items"]
        assert len(items) == expected
        seen += [item["uid"] for item in items]
        link = answer.headers.get("link", "")
        assert bool(link) is bool(answer.json["nextCursor"])
        url = link.partition(">")[0].removeprefix("<")
    assert url == ""
    assert seen == [f"uid-{n:04d}" for n in reversed(range(25))]


async def test_the_last_full_page_has_no_next() -> None:
    api = Api()
    api.history.rows = [row(n) for n in range(10)]
    answer = await api.call("GET", TASKS + "?limit=10")
    assert answer.json["nextCursor"] is None


async def test_a_cursor_of_another_filter_or_namespace_is_refused() -> None:
    api = Api()
    api.history.rows = [row(n) for n in range(3)]
    cursor = quote((await api.call("GET", TASKS + "?limit=1&queue=a")).json["nextCursor"])
    assert (await api.call("GET", f"{TASKS}?limit=2&queue=a&cursor={cursor}")).status == 200
    for other in ("", "&queue=b", "&queue=a&phase=Failed", "&queue=a&handler=x"):
        answer = await api.call("GET", f"{TASKS}?cursor={cursor}{other}")
        assert (answer.status, answer.json["code"]) == (400, "bad-cursor")


SCOPE = ["team-a", None, None, None]
GOOD = encode((CREATED, "uid-1"), SCOPE)


def test_a_cursor_keeps_microseconds() -> None:
    position = CREATED + timedelta(microseconds=123_457), "uid-1"
    assert decode(encode(position, SCOPE), SCOPE) == position


@pytest.mark.parametrize("number", range(len(GOOD)))
def test_a_cursor_changed_in_any_character_is_refused(number: int) -> None:
    other = "A" if GOOD[number] != "A" else "B"
    with pytest.raises(BadCursor):
        decode(GOOD[:number] + other + GOOD[number + 1 :], SCOPE)


def _raw(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    "junk",
    ["", "x", "é", GOOD[:-1], GOOD + "A", _raw("{}"), _raw("[1]"), _raw("[1e999,2,3]"), _raw("[" * 300), "A" * 600],
)
def test_junk_is_not_a_cursor(junk: str) -> None:
    with pytest.raises(BadCursor):
        decode(junk, SCOPE)


def _with_outputs(*names: str, key: str = f"team-a/{UID}/1/") -> dict[str, Any]:
    outputs = [
        {"name": name, "key": key + name, "sizeBytes": 3, "sha256": "0" * 64, "contentType": "text/csv"}
        for name in names
    ]
    return {
        "metadata": {
            "uid": UID,
            "namespace": "team-a",
            "name": "x",
            "creationTimestamp": "2026-09-20T12:00:00Z",
            "resourceVersion": "7",
        },
        "spec": {"handler": "a"},
        "status": {"phase": "Succeeded", "outputs": outputs},
    }


OBJECT = "/apis/taskflow.dev/v1alpha1/namespaces/team-a/tasks/x"


async def test_outputs_become_links_of_15_minutes() -> None:
    api = Api()
    api.kube.objects[OBJECT] = _with_outputs("a.csv", "b.csv")
    items = (await api.call("GET", TASKS + "/x/artifacts")).json["items"]
    assert [item["url"] for item in items] == [
        f"https://objects/team-a/{UID}/1/{name}?seconds=900&filename={name}" for name in ("a.csv", "b.csv")
    ]
    assert (items[0]["sha256"], items[0]["sizeBytes"], items[0]["contentType"]) == ("0" * 64, 3, "text/csv")
    one = await api.call("GET", TASKS + "/x/artifacts/b.csv")
    assert one.json["url"] == items[1]["url"]
    redirected = await api.call("GET", TASKS + "/x/artifacts/b.csv?redirect=true")
    assert (redirected.status, redirected.headers["location"]) == (307, items[1]["url"])
    assert (await api.call("GET", TASKS + "/x/artifacts/c.csv")).status == 404


async def test_outputs_of_a_task_that_is_gone_are_still_linked() -> None:
    api = Api()
    outputs = _with_outputs("a.csv")["status"]["outputs"]
    api.history.rows = [row(1, name="x", uid=UID, outputs=outputs)]
    assert len((await api.call("GET", TASKS + "/x/artifacts")).json["items"]) == 1


@pytest.mark.parametrize("key", [f"team-b/{UID}/1/", "team-a/other-uid/1/", f"team-a/{UID[:-1]}", ""])
async def test_a_key_outside_the_tasks_own_prefix_is_never_signed(key: str) -> None:
    api = Api()
    api.kube.objects[OBJECT] = _with_outputs("a.csv", key=key)
    assert (await api.call("GET", TASKS + "/x/artifacts/a.csv")).status == 404
    assert b"https://objects" not in (await api.call("GET", TASKS + "/x/artifacts")).body


async def test_an_upload_link_is_for_the_namespaces_own_prefix() -> None:
    answer = await Api().call("POST", "/v1/namespaces/team-a/uploads", {"key": "d/x.csv", "contentType": "text/csv"})
    body = answer.json
    assert body["url"] == "https://objects/team-a/d/x.csv?seconds=900"
    assert (body["method"], body["headers"], body["key"]) == ("PUT", {"Content-Type": "text/csv"}, "d/x.csv")


@pytest.mark.parametrize(
    "key", ["", "/x", "a//b", "../team-b/x", "a/./b", "a/", "x" * 513, UID + "/1/a.csv", UID.upper() + "/x"]
)
async def test_an_upload_can_neither_leave_its_prefix_nor_replace_an_output(key: str) -> None:
    answer = await Api().call("POST", "/v1/namespaces/team-a/uploads", {"key": key})
    assert (answer.status, answer.json["errors"][0]["pointer"]) == (422, "/key")


async def test_a_list_is_filtered_by_labels_and_times_and_its_cursor_belongs_to_all_of_them() -> None:
    api = Api()
    api.history.rows = [row(number) for number in range(3)]
    times = "createdAfter=2026-01-01T00:00:00Z&createdBefore=2027-01-01T00:00:00%2B02:00"
    query = f"{TASKS}?labelSelector=team%3Da,!old&{times}&phase=Succeeded&limit=1"
    answer = await api.call("GET", query)
    assert answer.status == 200, answer.body
    asked = api.history.asked
    assert asked is not None
    assert [(each.key, each.operator) for each in asked.labels] == [("team", "in"), ("old", "absent")]
    assert (asked.created_after, asked.created_before) == (
        datetime(2026, 1, 1, tzinfo=UTC),
        datetime(2026, 12, 31, 22, tzinfo=UTC),
    )
    link = answer.headers["link"].partition(">")[0].removeprefix("<")
    assert (await api.call("GET", link)).status == 200
    assert api.history.asked == asked
    cursor = answer.json["nextCursor"]
    for other in (
        f"labelSelector=team%3Da,!old&{times}",
        f"labelSelector=team&{times}&phase=Succeeded",
        "phase=Succeeded",
    ):
        refused = await api.call("GET", f"{TASKS}?{other}&cursor={cursor}")
        assert (refused.status, refused.json["code"]) == (400, "bad-cursor")


@pytest.mark.parametrize(
    "query", ["labelSelector=a%20b", "createdAfter=yesterday", "createdBefore=2026-01-01T00:00:00"]
)
async def test_an_invalid_filter_is_refused(query: str) -> None:
    answer = await Api().call("GET", f"{TASKS}?{query}")
    assert answer.status == 422
    assert answer.json["errors"][0]["location"] == "query"
