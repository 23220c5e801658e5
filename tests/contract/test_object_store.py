"""The same cases against every S3 server that TaskFlow is tested on."""

import hashlib
import os
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import urllib3
from pydantic import SecretStr

from taskflow_core.blobs.store import ObjectStore
from taskflow_core.errors import Conflict, Forbidden, Invalid, NotFound, Unavailable
from taskflow_core.settings import StorageSettings
from taskflow_local.stack import Stack

pytestmark = pytest.mark.integration
AWKWARD = "a b/ünïcode 雪/1+1=2 100%25&x#y?.txt"
http = urllib3.PoolManager(retries=False, timeout=10)


def test_bytes_come_back_with_size_digest_and_type(store: ObjectStore, folder: str) -> None:
    content = b"\x00\xffhello"
    stored = store.put_bytes(folder + "x", content, "text/csv; charset=utf-8")
    assert (stored.size, stored.sha256) == (7, hashlib.sha256(content).hexdigest())
    assert store.get_bytes(folder + "x") == content
    info = store.head(folder + "x")
    assert (info.key, info.size, info.content_type) == (folder + "x", 7, "text/csv; charset=utf-8")
    assert info.etag
    assert abs(info.modified - datetime.now(UTC)) < timedelta(minutes=1)


@pytest.mark.parametrize("size", [0, 1, 16 * 1024 * 1024, 16 * 1024 * 1024 + 1, 40 * 1024 * 1024])
def test_files_of_one_part_and_of_several_come_back_the_same(
    store: ObjectStore, folder: str, tmp_path: Path, size: int
) -> None:
    content = os.urandom(size)
    (tmp_path / "in").write_bytes(content)
    stored = store.put_file(folder + "file", tmp_path / "in", "application/x-test")
    fetched = store.get_to_file(folder + "file", tmp_path / "out")
    assert stored == fetched
    assert fetched.sha256 == hashlib.sha256(content).hexdigest()
    assert (tmp_path / "out").read_bytes() == content
    assert store.head(folder + "file").content_type == "application/x-test"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


def test_an_awkward_key_is_kept_in_every_operation(store: ObjectStore, folder: str, tmp_path: Path) -> None:
    key = folder + AWKWARD
    store.put_bytes(key, b"x")
    assert store.head(key).key == key
    assert [info.key for info in store.list(folder)] == [key]
    assert store.get_to_file(key, tmp_path / "x").size == 1
    store.delete(key)
    assert store.list(folder) == []


def test_a_part_comes_only_from_the_object_that_was_looked_at(store: ObjectStore, folder: str) -> None:
    key = folder + "parts"
    store.put_bytes(key, b"0123456789")
    etag = store.head(key).etag
    assert store.get_range(key, 3, 4, etag) == b"3456"
    assert store.get_range(key, 8, 2, etag) == b"89"
    assert b"".join(store.stream(key)) == b"0123456789"
    store.put_bytes(key, b"another one")
    with pytest.raises(Conflict, match="another one than it was"):
        store.get_range(key, 3, 4, etag)


def test_a_missing_object_is_not_found_and_leaves_no_file(store: ObjectStore, folder: str, tmp_path: Path) -> None:
    for read in (store.get_bytes, store.head, lambda key: store.get_to_file(key, tmp_path / "x")):
        with pytest.raises(NotFound, match="nothing"):
            read(folder + "nothing")
    assert list(tmp_path.iterdir()) == []
    store.delete(folder + "nothing")


def test_get_bytes_is_bounded_before_it_reads(store: ObjectStore, folder: str) -> None:
    store.put_bytes(folder + "x", b"12345")
    assert store.get_bytes(folder + "x", limit=5) == b"12345"
    with pytest.raises(Invalid, match="5 bytes; at most 4"):
        store.get_bytes(folder + "x", limit=4)


def test_an_object_is_replaced_by_a_second_put(store: ObjectStore, folder: str) -> None:
    store.put_bytes(folder + "x", b"long content")
    store.put_bytes(folder + "x", b"new")
    assert store.get_bytes(folder + "x") == b"new"


def test_a_listing_is_ordered_and_goes_on_after_a_key(store: ObjectStore, folder: str) -> None:
    keys = [f"{folder}{name}" for name in ("a/1", "a/2", "b", "c/d/e")]
    for key in reversed(keys):
        store.put_bytes(key, b"x")
    store.put_bytes(folder.rstrip("/") + "-other", b"x")
    assert [info.key for info in store.list(folder)] == keys
    assert [info.key for info in store.list(folder, limit=2)] == keys[:2]
    assert [info.key for info in store.list(folder, start_after=keys[1], limit=2)] == keys[2:]
    assert [info.key for info in store.list(folder + "a/")] == keys[:2]
    store.delete(folder.rstrip("/") + "-other")


def test_a_prefix_is_deleted_whole_and_nothing_beside_it(store: ObjectStore, folder: str) -> None:
    for number in range(25):
        store.put_bytes(f"{folder}gone/{number}/ä+x", b"x")
    store.put_bytes(folder + "gone-not", b"x")
    assert store.delete_prefix(folder + "gone/") == 25
    assert [info.key for info in store.list(folder)] == [folder + "gone-not"]
    for wrong in ("", "/", folder + "gone"):
        with pytest.raises(Invalid, match="ends in '/'"):
            store.delete_prefix(wrong)


@pytest.mark.parametrize("name", ["plain.csv", AWKWARD])
def test_a_get_link_needs_no_credentials_and_names_the_file(store: ObjectStore, folder: str, name: str) -> None:
    store.put_bytes(folder + name, b"content", "text/csv")
    answer = http.request(
        "GET", store.presigned_get(folder + name, seconds=60, filename='täble "1".csv', content_type="text/csv")
    )
    assert (answer.status, answer.data, answer.headers["content-type"]) == (200, b"content", "text/csv")
    expected = "attachment; filename=\"t_ble _1_.csv\"; filename*=UTF-8''t%C3%A4ble%20%221%22.csv"
    assert answer.headers["content-disposition"] == expected


@pytest.mark.parametrize("name", ["plain.csv", AWKWARD])
def test_a_put_link_needs_no_credentials_and_stores_the_type(store: ObjectStore, folder: str, name: str) -> None:
    url = store.presigned_put(folder + name, seconds=60)
    answer = http.request("PUT", url, body=b"sent", headers={"Content-Type": "text/csv"})
    assert answer.status == 200
    assert store.get_bytes(folder + name) == b"sent"
    assert store.head(folder + name).content_type == "text/csv"


def test_a_link_is_good_for_its_key_and_method_only(store: ObjectStore, folder: str) -> None:
    store.put_bytes(folder + "mine", b"x")
    store.put_bytes(folder + "other", b"x")
    url = store.presigned_get(folder + "mine", seconds=60)
    assert http.request("GET", url.replace("/mine?", "/other?")).status == 403
    assert http.request("PUT", url, body=b"y").status == 403
    assert http.request("GET", url.partition("?")[0]).status == 403
    assert store.get_bytes(folder + "mine") == b"x"


def test_an_expired_link_is_refused(store: ObjectStore, folder: str) -> None:
    store.put_bytes(folder + "x", b"x")
    url = store.presigned_get(folder + "x", seconds=1)
    deadline = time.monotonic() + 15
    while (status := http.request("GET", url).status) == 200 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert status == 403


@pytest.mark.parametrize("seconds", [0, 901])
def test_a_link_lives_15_minutes_at_most(store: ObjectStore, seconds: int) -> None:
    with pytest.raises(Invalid, match="1 to 900 seconds"):
        store.presigned_get("x", seconds=seconds)
    with pytest.raises(Invalid, match="1 to 900 seconds"):
        store.presigned_put("x", seconds=seconds)


def test_wrong_credentials_are_forbidden_and_not_told(settings: StorageSettings, folder: str) -> None:
    wrong = ObjectStore(settings.model_copy(update={"secret_key": SecretStr("wrong-secret-key")}))
    for call in (lambda: wrong.put_bytes(folder + "x", b"x"), lambda: wrong.list(folder), lambda: wrong.head(folder)):
        with pytest.raises(Forbidden) as caught:
            call()
        assert "wrong-secret-key" not in str(caught.value)


def test_a_missing_bucket_is_an_installation_that_is_not_ready(settings: StorageSettings, folder: str) -> None:
    nowhere = ObjectStore(settings.model_copy(update={"bucket": "no-such-bucket"}))
    for call in (nowhere.check, lambda: nowhere.put_bytes(folder + "x", b"x"), lambda: nowhere.get_bytes(folder + "x")):
        with pytest.raises(Unavailable, match="bucket"):
            call()


def test_a_stopped_server_is_unavailable_at_once_and_works_when_it_is_back(
    server: Stack, store: ObjectStore, folder: str
) -> None:
    store.check()
    store.put_bytes(folder + "x", b"x")
    (name,) = server.components
    server.stop(name)
    try:
        began = time.monotonic()
        for call in (store.check, lambda: store.get_bytes(folder + "x"), lambda: store.put_bytes(folder + "x", b"x")):
            with pytest.raises(Unavailable):
                call()
        assert time.monotonic() - began < 5
    finally:
        server.start(name)
    assert store.get_bytes(folder + "x") == b"x"


def test_a_large_file_never_is_in_memory(settings: StorageSettings, folder: str, tmp_path: Path) -> None:
    size = 192 * 1024 * 1024
    with (tmp_path / "large").open("wb") as file:
        file.truncate(size)
    env = {
        **os.environ,
        **{f"TASKFLOW_S3_{name.upper()}": str(value) for name, value in _plain(settings).items()},
    }
    program = (
        "import resource, sys; from pathlib import Path\n"
        "from taskflow_core.blobs.store import ObjectStore; from taskflow_core.settings import StorageSettings\n"
        "store = ObjectStore(StorageSettings()); before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "stored = store.put_file(sys.argv[1], Path(sys.argv[2]))\n"
        "assert store.get_to_file(sys.argv[1], Path(sys.argv[2] + '.out')) == stored\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    arguments = [sys.executable, "-c", program, folder + "large", str(tmp_path / "large")]
    answer = subprocess.run(arguments, env=env, capture_output=True, text=True, timeout=100, check=True)
    # In KiB. A part of 16 MiB and what surrounds it.
    assert int(answer.stdout) < 100 * 1024
    assert (tmp_path / "large.out").stat().st_size == size


def _plain(settings: StorageSettings) -> dict[str, str]:
    plain = {name: value.get_secret_value() if isinstance(value, SecretStr) else value for name, value in settings}
    return {name: value for name, value in plain.items() if value is not None}


def test_the_workers_of_a_namespace_reach_its_objects_and_no_others() -> None:
    """Of MinIO: versitygw, as it is run here, knows one user."""
    with tempfile.TemporaryDirectory(prefix="taskflow-") as folder:
        stack = Stack(Path(folder) / "state", components=("minio",))
        try:
            stack.up()
            for namespace in ("team-a", "team-b"):
                stack.admit(namespace)
            ours, theirs = (ObjectStore(as_worker(stack, namespace)) for namespace in ("team-a", "team-b"))
            theirs.put_bytes("team-b/secret.txt", b"theirs")
            ours.put_bytes("team-a/own.txt", b"ours")
            assert ours.get_bytes("team-a/own.txt") == b"ours"
            with pytest.raises(NotFound):
                ours.get_bytes("team-a/missing.txt")
            for refused in (
                lambda: ours.get_bytes("team-b/secret.txt"),
                lambda: ours.put_bytes("team-b/secret.txt", b"ours"),
                lambda: ours.list("team-b/"),
                lambda: ours.delete("team-b/secret.txt"),
            ):
                with pytest.raises(Forbidden):
                    refused()
            assert theirs.get_bytes("team-b/secret.txt") == b"theirs"
        finally:
            stack.down()


def as_worker(stack: Stack, namespace: str) -> StorageSettings:
    prefix = "TASKFLOW_S3_"
    found = stack.worker_env(namespace).items()
    return StorageSettings.model_validate(
        {name.removeprefix(prefix).lower(): value for name, value in found if name.startswith(prefix)}
    )
