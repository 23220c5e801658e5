import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
import structlog

from taskflow_api.files import multipart
from taskflow_api.files.links import warn_of_copies
from taskflow_api.files.multipart import parse_upload_id, sweep_forever, upload_id
from taskflow_core.errors import NotFound, Unavailable
from tests.unit.taskflow_api.fakes import UID, Api

FILES = "/v1/namespaces/team-a/files"
UPLOADS = "/v1/namespaces/team-a/multipart-uploads"


def stored(*keys: str) -> Api:
    api = Api()
    api.objects.stored = dict.fromkeys(keys, b"hello")
    return api


async def test_a_list_has_the_namespaces_own_keys_without_its_prefix_page_by_page() -> None:
    api = stored("team-a/a", "team-a/b/c", "team-a/d", "team-ab/x", "team-b/y")
    page = (await api.call("GET", FILES + "?limit=2")).json
    assert [each["key"] for each in page["items"]] == ["a", "b/c"]
    page = (await api.call("GET", f"{FILES}?limit=2&after={page['nextAfter']}")).json
    assert ([each["key"] for each in page["items"]], page["nextAfter"]) == (["d"], None)
    page = (await api.call("GET", FILES + "?prefix=b/")).json
    assert [each["key"] for each in page["items"]] == ["b/c"]


async def test_a_link_to_an_object_and_to_none() -> None:
    api = stored("team-a/d/x y.csv")
    answer = await api.call("GET", FILES + "/d/x%20y.csv")
    assert (answer.status, answer.json["sizeBytes"], answer.json["key"]) == (200, 5, "d/x y.csv")
    assert answer.json["url"] == "https://objects/team-a/d/x y.csv?seconds=900&filename=x y.csv"
    redirect = await api.call("GET", FILES + "/d/x%20y.csv?redirect=true")
    assert (redirect.status, redirect.headers["location"][:16]) == (307, "https://objects/")
    assert (await api.call("GET", FILES + "/nothing")).status == 404


@pytest.mark.parametrize(
    "key", ["../team-b/y", "a/../../team-b/y", "%2e%2e/team-b/y", "a%2F..%2F..%2Fteam-b%2Fy", "/team-b/y", "a//b", "a/"]
)
@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_no_key_leaves_the_namespace(method: str, key: str) -> None:
    api = stored("team-b/y")
    answer = await api.call(method, f"{FILES}/{key}")
    assert answer.status in (404, 422), answer.body
    assert "team-b/y" in api.objects.stored


async def test_an_object_is_deleted_but_not_the_output_of_a_task() -> None:
    output = f"{UID}/1/r.csv"
    api = stored("team-a/x", f"team-a/{output}")
    assert (await api.call("DELETE", FILES + "/x")).status == 204
    assert (await api.call("DELETE", FILES + "/x")).status == 404
    assert (await api.call("DELETE", f"{FILES}/{output}")).status == 422
    assert list(api.objects.stored) == [f"team-a/{output}"]


async def test_an_upload_in_parts() -> None:
    api = stored()
    begun = (await api.call("POST", UPLOADS, {"key": "d/big.bin"})).json
    assert (begun["key"], begun["minPartBytes"]) == ("d/big.bin", 5 * 1024 * 1024)
    one = f"{UPLOADS}/{begun['id']}"
    links = (await api.call("POST", one + ":sign", {"parts": [1, 2]})).json
    assert [each["url"] for each in links["parts"]] == [
        f"https://objects/team-a/d/big.bin?uploadId=u0&partNumber={number}&seconds=900" for number in (1, 2)
    ]
    parts = [{"number": number, "etag": f'"e{number}"'} for number in (1, 2)]
    done = await api.call("POST", one + ":complete", {"parts": parts})
    assert (done.status, done.json["key"], done.json["sizeBytes"]) == (200, "d/big.bin", 2)
    assert (await api.call("POST", one + ":complete", {"parts": parts})).status == 404


async def test_an_aborted_upload_is_no_more() -> None:
    api = stored()
    one = f"{UPLOADS}/{(await api.call('POST', UPLOADS, {'key': 'x'})).json['id']}"
    assert (await api.call("DELETE", one)).status == 204
    assert (await api.call("DELETE", one)).status == 404
    assert (await api.call("POST", one + ":sign", {"parts": [1]})).status == 404


@pytest.mark.parametrize(
    "body",
    [
        {"parts": []},
        {"parts": [0]},
        {"parts": [10_001]},
        {"parts": list(range(1, 102))},
        {"parts": ["x"]},
    ],
)
async def test_only_parts_that_s3_has_are_signed(body: dict[str, Any]) -> None:
    api = stored()
    one = f"{UPLOADS}/{(await api.call('POST', UPLOADS, {'key': 'x'})).json['id']}"
    assert (await api.call("POST", one + ":sign", body)).status == 422


async def test_no_upload_replaces_an_output() -> None:
    assert (await stored().call("POST", UPLOADS, {"key": f"{UID}/1/r.csv"})).status == 422


@pytest.mark.parametrize(
    "value", ["x", "AAAA", upload_id("../team-b/y", "u0"), upload_id("", "u0"), upload_id("x", ""), "_" * 40]
)
async def test_an_id_that_was_not_given_is_none(value: str) -> None:
    with pytest.raises(NotFound):
        parse_upload_id(value)
    assert (await stored().call("POST", f"{UPLOADS}/{value}:sign", {"parts": [1]})).status == 404


def test_an_id_has_key_and_upload() -> None:
    assert parse_upload_id(upload_id("d/ünï x", "a.b-c_d")) == ("d/ünï x", "a.b-c_d")


async def test_the_sweeper_outlives_an_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multipart, "SWEEP_SECONDS", 0.001)
    asked: list[datetime] = []

    class Uploads:
        def sweep(self, before: datetime) -> int:
            asked.append(before)
            if len(asked) == 1:
                raise Unavailable("object store: away")
            return 1

    now = datetime(2026, 11, 25, tzinfo=UTC)
    job = asyncio.create_task(sweep_forever(cast("Any", Uploads()), lambda: now))
    while len(asked) < 3:  # noqa: ASYNC110 - the sweeper tells nobody
        await asyncio.sleep(0.001)
    job.cancel()
    assert set(asked) == {now - timedelta(hours=24)}


async def test_an_upload_of_an_output_cannot_be_taken_over() -> None:
    api = stored()
    key = f"{UID}/1/r.csv"
    api.objects.uploads.open["u0"] = f"team-a/{key}"
    url = f"{UPLOADS}/{upload_id(key, 'u0')}"
    for method, path, body in (
        ("POST", ":sign", {"parts": [1]}),
        ("POST", ":complete", {"parts": [{"number": 1, "etag": "e"}]}),
        ("DELETE", "", None),
    ):
        assert (await api.call(method, url + path, body)).status == 422
    assert api.objects.uploads.open == {"u0": f"team-a/{key}"}


@pytest.mark.parametrize(
    ("copying", "failure", "said"),
    [(False, None, []), (True, None, ["links_can_copy"]), (True, Unavailable("away"), ["links_not_checked"])],
)
async def test_a_login_that_can_copy_is_logged_at_the_start(
    copying: bool, failure: Exception | None, said: list[str]
) -> None:
    api = stored()
    api.objects.copying, api.objects.failure = copying, failure
    with structlog.testing.capture_logs() as logs:
        await warn_of_copies(api.objects)
    assert [each["event"] for each in logs] == said
