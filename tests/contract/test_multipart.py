"""Uploads in parts against every S3 server that TaskFlow is tested on, and links for a host that only clients reach."""

from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import pytest
import urllib3

from taskflow_core.blobs.multipart import MIN_PART_BYTES, SentPart
from taskflow_core.blobs.store import ObjectStore
from taskflow_core.errors import Invalid, NotFound
from taskflow_core.settings import StorageSettings

pytestmark = pytest.mark.integration
http = urllib3.PoolManager(retries=False, timeout=20)


def send(url: str, content: bytes) -> str:
    answer = http.request("PUT", url, body=content)
    assert answer.status == 200, answer.data
    return str(answer.headers["ETag"])


def test_parts_that_were_sent_by_their_links_become_one_object(store: ObjectStore, folder: str) -> None:
    uploads, key = store.multipart(), folder + "big ünï.bin"
    upload = uploads.begin(key, "text/csv")
    parts = [b"a" * MIN_PART_BYTES, b"the last one may be short"]
    links = [uploads.presigned_part(key, upload, number + 1) for number in range(2)]
    # In any order, and one of them twice.
    sent = [SentPart(2, send(links[1], parts[1])), SentPart(1, send(links[0], b"b" * MIN_PART_BYTES))]
    sent[1] = SentPart(1, send(links[0], parts[0]))
    with pytest.raises(NotFound):
        store.head(key)
    uploads.complete(key, upload, sent)
    found = store.head(key)
    assert (found.size, found.content_type) == (sum(map(len, parts)), "text/csv")
    assert store.get_range(key, MIN_PART_BYTES - 1, 4) == b"athe"
    with pytest.raises(NotFound):
        uploads.check(key, upload)


def test_a_part_that_was_not_sent_completes_nothing(store: ObjectStore, folder: str) -> None:
    uploads, key = store.multipart(), folder + "x"
    upload = uploads.begin(key, "text/plain")
    etag = send(uploads.presigned_part(key, upload, 1), b"x")
    with pytest.raises(Invalid):
        uploads.complete(key, upload, [SentPart(1, etag), SentPart(2, "d41d8cd98f00b204e9800998ecf8427e")])
    uploads.check(key, upload)
    uploads.abort(key, upload)


def test_an_upload_is_of_its_key_and_ends_once(store: ObjectStore, folder: str) -> None:
    uploads, key = store.multipart(), folder + "x"
    upload = uploads.begin(key, "text/plain")
    with pytest.raises(NotFound):
        uploads.check(folder + "y", upload)
    uploads.abort(key, upload)
    with pytest.raises(NotFound):
        uploads.check(key, upload)
    assert http.request("PUT", uploads.presigned_part(key, upload, 1), body=b"x").status == 404


def test_what_nobody_ended_is_swept_and_nothing_younger(store: ObjectStore, folder: str) -> None:
    uploads, key = store.multipart(), folder + "x"
    upload = uploads.begin(key, "text/plain")
    now = datetime.now(UTC)
    uploads.sweep(now - timedelta(hours=1))
    uploads.check(key, upload)
    assert uploads.sweep(now + timedelta(minutes=1)) >= 1
    with pytest.raises(NotFound):
        uploads.check(key, upload)


def test_links_are_for_the_host_that_clients_reach(settings: StorageSettings, folder: str) -> None:
    port = urlsplit(settings.endpoint).port
    # The same server by another name: a signature for the one is none for the other.
    outside = ObjectStore(settings.model_copy(update={"public_endpoint": f"http://localhost:{port}"}))
    outside.put_bytes(folder + "x", b"hello")
    link = outside.presigned_get(folder + "x")
    assert urlsplit(link).netloc == f"localhost:{port}"
    assert http.request("GET", link).data == b"hello"
    assert http.request("GET", link.replace("localhost", "127.0.0.1")).status == 403
    assert urlsplit(outside.multipart().presigned_part(folder + "x", "u", 1)).netloc == f"localhost:{port}"
