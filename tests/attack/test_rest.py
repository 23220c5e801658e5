"""What a REST caller can do that may do everything with Tasks of its own namespace, and nothing elsewhere."""

from __future__ import annotations

import json
import urllib.error
import urllib.request

import pytest

from tests.api_server import TASKS
from tests.attack.site import EVIL, SECRET, SECRET_KEY, VICTIM, Site
from tests.e2e.product import eventually

pytestmark = pytest.mark.e2e

CALLER = "caller"


@pytest.fixture(scope="module")
def token(whole_site: Site) -> str:
    """Of a ServiceAccount of the hostile tenant."""
    kubectl = whole_site.product.kubectl
    kubectl("-n", EVIL, "create", "serviceaccount", CALLER)
    kubectl("-n", EVIL, "create", "role", CALLER, "--verb=*", "--resource=tasks.taskflow.dev")
    kubectl("-n", EVIL, "create", "rolebinding", CALLER, f"--role={CALLER}", f"--serviceaccount={EVIL}:{CALLER}")
    return kubectl("-n", EVIL, "create", "token", CALLER).strip()


def put(url: str, body: bytes, headers: dict[str, str]) -> int:
    request = urllib.request.Request(url, method="PUT", data=body, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def stored(site: Site, prefix: str) -> list[bytes]:
    """The contents of all objects below a prefix."""
    found = []
    for each in site.all_objects.list_objects("taskflow", prefix=prefix, recursive=True):
        response = site.all_objects.get_object("taskflow", str(each.object_name))
        found.append(response.read())
        response.close()
        response.release_conn()
    return found


def test_a_link_to_upload_copies_nothing(site: Site, token: str) -> None:
    code, link = site.rest("POST", f"/v1/namespaces/{EVIL}/uploads", {"key": "copy.txt"}, token)
    assert code in (200, 201), link
    for source in (f"/taskflow/{SECRET_KEY}", f"taskflow/{SECRET_KEY}", f"%2Ftaskflow%2F{SECRET_KEY}"):
        assert put(link["url"], b"", {"x-amz-copy-source": source}) != 200
    assert SECRET not in stored(site, f"{EVIL}/")


def test_a_row_that_names_a_task_elsewhere(site: Site, token: str) -> None:
    """Rows are the operator's; were one forged all the same, the API asks the API server what it is about."""
    waiting = site.create(VICTIM, "taskflow.sleep", args=[30])
    name, uid = waiting["metadata"]["name"], waiting["metadata"]["uid"]
    eventually(
        lambda: site.database.execute("SELECT count(*) FROM tasks WHERE uid = %s", (uid,)).fetchone(),
        lambda found: found == (1,),
        30,
    )
    columns = [
        row[0]
        for row in site.database.execute(
            "SELECT column_name FROM information_schema.columns WHERE table_name = 'tasks' ORDER BY ordinal_position"
        )
    ]
    other = [each for each in columns if each not in ("uid", "namespace", "name")]
    for number, forged in enumerate((f"../../{VICTIM}/tasks/{name}", name, f"..%2f..%2f{VICTIM}%2ftasks%2f{name}")):
        site.database.execute(
            f"INSERT INTO tasks (uid, namespace, name, {', '.join(other)}) "
            f"SELECT %s, %s, %s, {', '.join(other)} FROM tasks WHERE uid = %s",
            (f"00000000-0000-0000-0000-00000000000{number}", EVIL, forged, uid),
        )
    before = len(site.api_server.list(TASKS, namespace=VICTIM))
    try:
        for verb in ("cancel", "retry"):
            body = {"filter": {}, "all": True}
            code, operation = site.rest("POST", f"/v1/namespaces/{EVIL}/tasks:{verb}", body, token)
            assert code in (200, 201, 202), operation
            path = f"/v1/namespaces/{EVIL}/operations/{operation['id']}"
            eventually(
                lambda path=path: site.rest("GET", path, None, token)[1],  # type: ignore[misc]
                lambda found: found.get("state") in ("Done", "Failed"),
                60,
            )
        spec = site.task(VICTIM, name)["spec"]
        assert not spec.get("cancel")
        assert len(site.api_server.list(TASKS, namespace=VICTIM)) == before
    finally:
        site.database.execute("DELETE FROM tasks WHERE uid LIKE '00000000-0000-0000-0000-%%'")
        site.product.kubectl("-n", VICTIM, "delete", "tft", name)


@pytest.mark.parametrize(
    "path",
    [
        f"/v1/namespaces/{VICTIM}/tasks",
        f"/v1/namespaces/{VICTIM}/files",
        f"/v1/namespaces/{EVIL}/../{VICTIM}/tasks",
        f"/v1/namespaces/{EVIL}%2f..%2f{VICTIM}/tasks",
        f"/v1/namespaces/{EVIL}/tasks/..%2f..%2f{VICTIM}%2ftasks%2fx",
    ],
)
def test_no_path_leads_into_another_namespace(site: Site, token: str, path: str) -> None:
    code, answer = site.rest("GET", path, None, token)
    assert code in (400, 403, 404, 422), answer


def test_arguments_that_are_nested_deeply(site: Site, token: str) -> None:
    deep = json.loads("[" * 400 + "]" * 400)
    body = {"name": "deep", "handler": "taskflow.echo", "args": [deep]}
    code, answer = site.rest("POST", f"/v1/namespaces/{EVIL}/tasks", body, token)
    assert code in (400, 413, 422), answer
    assert answer["type"] != "about:blank"
