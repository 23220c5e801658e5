"""What a request says twice is refused, wherever it says it."""

from typing import Any

import pytest
from fastapi.routing import APIRoute

from taskflow_api.http.repetitions import repeated_names
from tests.unit.taskflow_api.fakes import Api

TASKS = "/v1/namespaces/team-a/tasks"


@pytest.mark.parametrize(
    ("text", "pointers"),
    [
        (b'{"a": 1, "b": {"a": 1}}', []),
        (b'{"a": 1, "a": 1}', ["/a"]),
        (b'{"a": [{}, {"b/c": 1, "d": 2, "b/c": 3, "d": 2}], "e": {"f": 1, "f": {}}}', ["/a/1/b~1c", "/a/1/d", "/e/f"]),
        (b'{"a": 1, "\\u0061": 2}', ["/a"]),
        (b'{"a": 1, "a": ', []),
        (b"", []),
        (b"\xff", []),
    ],
)
def test_names_that_an_object_has_more_than_once(text: bytes, pointers: list[str]) -> None:
    assert [each.pointer for each in repeated_names(text)] == pointers


@pytest.mark.parametrize(
    ("method", "path", "body", "pointer"),
    [
        ("POST", TASKS, b'{"name": "x", "spec": {"handler": "a", "queue": "a", "queue": "b"}}', "/spec/queue"),
        (
            "POST",
            TASKS,
            b'{"name": "x", "spec": {"handler": "a", "kwargs": {"n": {"b": 1, "b": 2}}}}',
            "/spec/kwargs/n/b",
        ),
        (
            "POST",
            TASKS + ":batch",
            b'{"items": [{"name": "x", "name": "y", "spec": {"handler": "a"}}]}',
            "/items/0/name",
        ),
        ("PATCH", TASKS + "/x", b'{"spec": {"priority": 1, "priority": 9}}', "/spec/priority"),
        ("POST", TASKS + ":cancel", b'{"filter": {"phase": "Queued", "phase": "Running"}}', "/filter/phase"),
        ("POST", "/v1/namespaces/team-a/uploads", b'{"key": "a", "key": "b"}', "/key"),
        ("POST", "/v1/auth/register", b'{"username": "ann", "username": "bob", "password": "p"}', "/username"),
    ],
)
async def test_a_body_that_names_something_twice_does_nothing(
    method: str, path: str, body: bytes, pointer: str
) -> None:
    api = Api(register=True)
    answer = await api.call(method, path, body)
    assert (answer.status, answer.json["code"]) == (422, "invalid")
    assert [(each["location"], each["pointer"]) for each in answer.json["errors"]] == [("body", pointer)]
    assert api.kube.objects == {}


def routes_with_parameters() -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for route in Api(register=True).app.state.routes:
        if isinstance(route, APIRoute):
            path = route.path_format.format_map(_Names())
            found += [
                (method, f"{path}?{field.alias}=1&{field.alias}=2")
                for method in route.methods or ()
                for field in route.dependant.query_params
            ]
    return found


class _Names(dict[str, str]):
    def __missing__(self, name: str) -> str:
        return "team-a" if name == "namespace" else "x"


@pytest.mark.parametrize(("method", "url"), [*routes_with_parameters(), ("GET", TASKS + "/x?a=1&a=2")])
async def test_a_parameter_given_twice_is_refused_on_every_route(method: str, url: str) -> None:
    body: Any = {} if method in ("POST", "PATCH") else None
    answer = await Api(register=True).call(method, url, body)
    name = url.partition("?")[2].partition("=")[0]
    assert (answer.status, answer.json["detail"]) == (422, "a query parameter is given more than once")
    assert answer.json["errors"] == [
        {"location": "query", "pointer": f"/{name}", "detail": "expected once, found 2 times"}
    ]


def test_the_routes_have_parameters() -> None:
    assert len(routes_with_parameters()) > 30
