"""HEAD is answered wherever GET is, with the same headers and nothing else."""

import pytest

from tests.unit.taskflow_api.fakes import Api

TASKS = "/v1/namespaces/team-a/tasks"


@pytest.mark.parametrize(
    "path",
    ["/livez", "/readyz?verbose", "/version", "/openapi.json", TASKS, TASKS + "?limit=x", TASKS + "/none", "/v1/none"],
)
async def test_it_is_get_without_the_body(path: str) -> None:
    api = Api()
    got, head = [await api.call(method, path, x_request_id="same") for method in ("GET", "HEAD")]
    assert (head.status, head.headers, head.body) == (got.status, got.headers, b"")
    assert got.body


async def test_it_needs_the_token_and_the_permission_of_get() -> None:
    api = Api()
    assert (await api.call("HEAD", TASKS, token="")).status == 401
    assert (await api.call("HEAD", TASKS, token="bob-token")).status == (
        await api.call("GET", TASKS, token="bob-token")
    ).status


async def test_a_path_without_get_has_no_head() -> None:
    answer = await Api().call("HEAD", TASKS + ":batch")
    assert (answer.status, answer.headers["allow"], answer.body) == (405, "POST", b"")


def test_it_is_no_operation_of_its_own() -> None:
    methods = {method for path in Api().app.openapi()["paths"].values() for method in path}
    assert methods == {"get", "post", "patch", "delete"}
