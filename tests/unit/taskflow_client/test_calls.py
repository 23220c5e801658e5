from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from taskflow_client import files, pools, tasks
from taskflow_client.calls import Answer, Call, result_of, retry_delay
from taskflow_client.errors import (
    ChangedSinceError,
    ConflictError,
    ForbiddenError,
    InvalidError,
    NotFoundError,
    ResetError,
    TaskflowError,
    TooManyRequestsError,
    UnavailableError,
)
from taskflow_client.sse import Reader

PROBLEM = {
    "type": "https://taskflow.dev/problems/invalid",
    "title": "Unprocessable Entity",
    "status": 422,
    "code": "invalid",
    "detail": "the request does not fit its schema",
    "requestId": "r1",
    "errors": [{"location": "body", "pointer": "/spec/handler", "detail": "too long"}],
}


def answer(status: int, body: Any = None, **headers: str) -> Answer:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status, sent, b"" if body is None else json.dumps(body).encode())


def test_create_sends_exactly_the_given_fields() -> None:
    call = tasks.create("team-a", "reports.lines", name="r", kwargs={"prefix": "E"}, queue="reports")
    assert (call.method, call.path, call.params, call.headers) == ("POST", "/v1/namespaces/team-a/tasks", {}, {})
    assert call.body == {
        "name": "r",
        "spec": {"handler": "reports.lines", "kwargs": {"prefix": "E"}, "queue": "reports"},
    }
    keyed = tasks.create("team-a", "h", idempotency_key="k", wait_seconds=5, labels={"a": "b"}, dry_run=True)
    assert keyed.headers == {"Idempotency-Key": "k", "Prefer": "wait=5"}
    assert keyed.params == {"dryRun": "true"}
    assert keyed.body == {"spec": {"handler": "h"}, "labels": {"a": "b"}}


def test_what_ran_once_is_forgotten_by_its_name() -> None:
    call = tasks.forget_runs("team-a", "report")
    assert (call.method, call.path, call.body) == ("DELETE", "/v1/namespaces/team-a/run-once/report", None)
    assert result_of(call, answer(204)) is None


def test_names_are_quoted_and_query_names_are_camel_case() -> None:
    assert tasks.get("team-a", "a/b?c").path == "/v1/namespaces/team-a/tasks/a%2Fb%3Fc"
    assert files.get("team-a", "in/a b.txt").path == "/v1/namespaces/team-a/files/in/a%20b.txt"
    call = tasks.listed("n", label_selector="team=a", created_after=datetime(2026, 1, 1, tzinfo=UTC), limit=5)
    assert call.params == {"labelSelector": "team=a", "createdAfter": "2026-01-01T00:00:00+00:00", "limit": "5"}


def test_a_page_leads_to_the_next_with_the_same_question() -> None:
    call = tasks.listed("n", queue="q")
    page = result_of(call, answer(200, {"items": [], "nextCursor": "c1"}))
    following = call.following(page)
    assert following is not None
    assert following.params == {"queue": "q", "cursor": "c1"}
    assert following.following(result_of(following, answer(200, {"items": [], "nextCursor": None}))) is None
    objects = files.listed("n", prefix="in/")
    after = objects.following(result_of(objects, answer(200, {"items": [], "nextAfter": "in/z"})))
    assert after is not None
    assert after.params == {"prefix": "in/", "after": "in/z"}


def test_an_unchanged_task_is_none() -> None:
    call = tasks.get("n", "x", if_none_match='"1"')
    assert call.headers == {"If-None-Match": '"1"'}
    assert result_of(call, answer(304)) is None


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, InvalidError),
        (403, ForbiddenError),
        (404, NotFoundError),
        (409, ConflictError),
        (412, ChangedSinceError),
        (422, InvalidError),
        (429, TooManyRequestsError),
        (418, TaskflowError),
        (500, UnavailableError),
        (503, UnavailableError),
    ],
)
def test_each_problem_has_its_class(status: int, kind: type[TaskflowError]) -> None:
    with pytest.raises(TaskflowError) as caught:
        result_of(pools.get("n", "p"), answer(status, PROBLEM, retry_after="7"))
    assert type(caught.value) is kind
    error = caught.value
    assert (error.status, error.code, error.request_id, error.retry_after) == (status, "invalid", "r1", 7.0)
    assert str(error) == "the request does not fit its schema; /spec/handler: too long"


@pytest.mark.parametrize("body", [b"<html>", b"", b"[]", b"null"])
def test_an_answer_of_a_proxy_is_an_error(body: bytes) -> None:
    with pytest.raises(UnavailableError, match="HTTP 502"):
        result_of(pools.get("n", "p"), Answer(502, {}, body))


GET, POST = tasks.get("n", "x"), tasks.create("n", "h", name="x")
KEYED = tasks.create("n", "h", idempotency_key="k")


@pytest.mark.parametrize(
    ("call", "answered", "attempt", "seconds"),
    [
        (GET, None, 1, 0.2),
        (GET, None, 3, 0.8),
        (GET, None, 5, None),
        (GET, answer(503, retry_after="5"), 1, 5.0),
        (GET, answer(503, retry_after="Wed, 25 Nov 2026 12:00:00 GMT"), 1, 0.2),
        (GET, answer(429, retry_after="3600"), 1, 30.0),
        (GET, answer(500), 1, None),
        (GET, answer(200), 1, None),
        (POST, None, 1, None),
        (POST, answer(503, retry_after="1"), 1, None),
        (POST, answer(429, retry_after="1"), 1, 1.0),
        (KEYED, None, 1, 0.2),
        (KEYED, answer(503, retry_after="1"), 1, 1.0),
    ],
)
def test_only_idempotent_calls_are_retried(
    call: Call[Any], answered: Answer | None, attempt: int, seconds: float | None
) -> None:
    assert retry_delay(call, answered, attempt, 4) == seconds


def test_events_are_parsed_line_by_line_and_the_last_id_is_kept() -> None:
    reader = Reader()
    text = (
        "id: 7\nevent: ready\ndata: {}\n\n: ping\nid: 8\n\n"
        'id: 9\nevent: task\ndata: {"type": "changed",\ndata: "task": {"phase": "Succeeded"}}\n\n'
    )
    (event,) = filter(None, map(reader.line, text.split("\n")))
    assert (event.id, event.type, event.ended) == ("9", "changed", True)
    assert reader.last_event_id == "9"
    for line in ("id: 12", "event: reset", "data: {}"):
        assert reader.line(line) is None
    with pytest.raises(ResetError) as caught:
        reader.line("")
    assert caught.value.last_event_id == "12"
