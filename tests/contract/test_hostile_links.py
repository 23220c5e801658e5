"""What somebody can do who has a link, or a worker's login, and adds to its request what changes the request's meaning.

On every S3 server that TaskFlow is tested on. A shared key of a server without policies signs like the API's.
"""

import io
import tarfile
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
import urllib3
from pydantic import SecretStr

from taskflow_core.blobs.multipart import MIN_PART_BYTES, SentPart
from taskflow_core.blobs.store import ObjectStore
from taskflow_core.broker import acl
from taskflow_core.errors import Forbidden, TaskflowError
from taskflow_core.settings import StorageSettings
from taskflow_local.stack import Stack

pytestmark = pytest.mark.integration
http = urllib3.PoolManager(retries=False, timeout=20)
BUCKET = "taskflow"
SECRET, SECRET_BYTES = "victim/secret.txt", b"of the victim"
OTHER, OTHER_BYTES = "victim/other.txt", b"another one of the victim"
MINE = "evil/copy.txt"
COPIES = (
    f"/{BUCKET}/{SECRET}",
    f"{BUCKET}/{SECRET}",
    quote(f"/{BUCKET}/{SECRET}", safe=""),
    f"/{BUCKET}/{SECRET}?versionId=null",
)
HEADERS: list[dict[str, str]] = [
    *({"x-amz-copy-source": source} for source in COPIES),
    *({"X-AMZ-COPY-SOURCE": source, "X-Amz-Copy-Source-Range": "bytes=0-5"} for source in COPIES[:2]),
    {"x-amz-copy-source": COPIES[0], "x-amz-metadata-directive": "REPLACE", "x-amz-tagging-directive": "REPLACE"},
    {"x-amz-copy-source": COPIES[0], "x-amz-copy-source-if-match": "*"},
    {"x-amz-acl": "public-read"},
    {"x-amz-grant-read": 'uri="http://acs.amazonaws.com/groups/global/AllUsers"'},
    {"x-amz-tagging": "a=b"},
    {"x-amz-website-redirect-location": "/victim/secret.txt"},
    {"x-amz-object-lock-mode": "COMPLIANCE", "x-amz-object-lock-retain-until-date": "2099-01-01T00:00:00Z"},
    {"x-amz-object-lock-legal-hold": "ON"},
    {"x-amz-server-side-encryption": "AES256"},
    {"x-amz-server-side-encryption-customer-algorithm": "AES256"},
    {"x-amz-storage-class": "REDUCED_REDUNDANCY"},
    {"x-amz-meta-snowball-auto-extract": "true"},
    {"x-amz-meta-snowball-auto-extract": "true", "x-amz-meta-minio-snowball-prefix": "victim"},
    {"x-minio-extract": "true"},
    {"x-minio-source-replication-request": "true", "x-minio-source-mtime": "2020-01-01T00:00:00Z"},
    {"X-HTTP-Method-Override": "GET"},
    {"X-HTTP-Method": "DELETE", "X-Method-Override": "DELETE"},
    {"X-Forwarded-Host": "victim", "X-Original-URL": f"/{BUCKET}/{SECRET}", "X-Rewrite-URL": f"/{BUCKET}/{SECRET}"},
    {"Range": "bytes=0-5", "Content-Range": "bytes 0-5/6"},
]
QUERIES = (
    "acl",
    "tagging",
    "retention",
    "legal-hold",
    "policy",
    "versioning",
    "uploads",
    "uploadId=x&partNumber=1",
    "partNumber=1",
    "versionId=null",
    "attributes",
    "torrent",
    "select&select-type=2",
    "restore",
    "x-amz-copy-source=" + quote(COPIES[0], safe=""),
    "X-Amz-Copy-Source=" + quote(COPIES[0], safe=""),
    "x-id=CopyObject",
    "response-content-type=text/html",
)
METHODS = ("GET", "HEAD", "POST", "DELETE", "PATCH", "OPTIONS", "COPY", "MOVE", "put")


def archive(*names: str) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for name in names:
            entry = tarfile.TarInfo(name)
            entry.size = 4
            tar.addfile(entry, io.BytesIO(b"evil"))
    return made.getvalue()


class Site:
    """A bucket with two namespaces, and who signs in it."""

    def __init__(self, stack: Stack, settings: StorageSettings) -> None:
        self.admin = ObjectStore(settings)
        (self.kind,) = stack.components
        login: dict[str, Any] = {}
        if self.kind == "minio":
            login = {"access_key": SecretStr(acl.API), "secret_key": SecretStr(stack._state.s3_api_secret_key)}
        self.api = ObjectStore(settings.model_copy(update=login))
        self.worker: ObjectStore | None = None
        if self.kind == "minio":
            stack.admit("evil")
            prefix = "TASKFLOW_S3_"
            found = {
                name.removeprefix(prefix).lower(): value
                for name, value in stack.worker_env("evil").items()
                if name.startswith(prefix)
            }
            self.worker = ObjectStore(StorageSettings.model_validate(found))
        for key, content in ((SECRET, SECRET_BYTES), (OTHER, OTHER_BYTES)):
            self.admin.put_bytes(key, content)

    def check(self, told: object) -> None:
        """Nothing of the victim is in the attacker's namespace, and its objects are as they were."""
        assert [each.key for each in self.admin.list("victim/")] == [OTHER, SECRET], told
        assert (self.admin.get_bytes(SECRET), self.admin.get_bytes(OTHER)) == (SECRET_BYTES, OTHER_BYTES), told
        for each in self.admin.list(""):
            if not each.key.startswith("victim/"):
                assert each.key.startswith("evil/"), (told, each.key)
                assert b"of the victim" not in self.admin.get_bytes(each.key), (told, each.key)
        plain = f"{urlsplit(self.admin.presigned_get(SECRET))._replace(query='').geturl()}"
        assert http.request("GET", plain).status == 403, told

    def attack(self, link: Callable[[], str]) -> None:
        body = archive("victim/secret.txt", "secret.txt", "../victim/secret.txt")
        tries = [("PUT", link(), headers) for headers in HEADERS]
        tries += [("PUT", f"{link()}&{query}", {}) for query in QUERIES]
        tries += [("PUT", link().replace("?", f"?{query}&", 1), {}) for query in QUERIES]
        tries += [(method, link(), {}) for method in METHODS]
        tries += [
            ("PUT", link().replace("evil/copy.txt", other), {}) for other in ("victim/new.txt", "evil/../" + SECRET)
        ]
        for method, url, headers in tries:
            for content in (b"", body):
                answer = http.request(method, url, body=content, headers=headers, redirect=False)
                told = (method, url.partition("?")[2], headers, answer.status, answer.data[:300])
                assert SECRET_BYTES not in answer.data, told
                self.check(told)


@pytest.fixture(scope="module")
def site(server: Stack) -> Iterator[Site]:
    prefix = "TASKFLOW_S3_"
    found = {n.removeprefix(prefix).lower(): value for n, value in server.env().items() if n.startswith(prefix)}
    made = Site(server, StorageSettings.model_validate(found))
    yield made
    for namespace in ("victim/", "evil/"):
        made.admin.delete_prefix(namespace)


def test_a_link_to_upload_reads_and_changes_nothing_of_another_namespace(site: Site) -> None:
    site.attack(lambda: site.api.presigned_put(MINE))
    answer = http.request("PUT", site.api.presigned_put(MINE), body=b"an honest one")
    assert (answer.status, site.admin.get_bytes(MINE)) == (200, b"an honest one")


def test_a_link_to_upload_a_part_reads_and_changes_nothing_of_another_namespace(site: Site) -> None:
    uploads = site.api.multipart()
    upload = uploads.begin(MINE, "text/plain")
    site.attack(lambda: uploads.presigned_part(MINE, upload, 1))
    for header in HEADERS:
        # Of the part's, what was stored becomes visible only when the upload is completed.
        answer = http.request("PUT", uploads.presigned_part(MINE, upload, 1), headers=header, body=b"")
        if etag := answer.headers.get("ETag"):
            try:
                uploads.complete(MINE, upload, [SentPart(1, etag)])
            except TaskflowError:
                continue
            site.check(("completed", header, answer.data))
            upload = uploads.begin(MINE, "text/plain")
    etag = http.request("PUT", uploads.presigned_part(MINE, upload, 1), body=b"x" * MIN_PART_BYTES).headers["ETag"]
    uploads.complete(MINE, upload, [SentPart(1, etag)])
    assert site.admin.head(MINE).size == MIN_PART_BYTES


def test_a_login_by_which_links_can_copy_is_recognised(site: Site) -> None:
    before = [each.key for each in site.admin.list("")]
    assert not site.api.links_can_copy()
    # The administrator of MinIO is not restricted by any policy.
    assert site.admin.links_can_copy() is (site.kind == "minio")
    assert [each.key for each in site.admin.list("")] == before
    answer = http.request("PUT", site.admin.presigned_put(MINE), headers={"x-amz-copy-source": COPIES[0]})
    assert (answer.status == 200) is (site.kind == "minio")
    site.admin.delete(MINE)


def test_a_link_to_download_gives_that_object_only_and_as_what_it_was_signed(site: Site) -> None:
    site.admin.put_bytes(MINE, b"<script>alert(1)</script>", "text/html")
    link = site.api.presigned_get(MINE, filename="x.html", content_type="text/html")
    answer = http.request("GET", link)
    assert (answer.headers["content-type"], answer.status) == ("application/octet-stream", 200)
    assert answer.headers["content-disposition"].startswith("attachment; ")
    for query in (*QUERIES, "response-content-disposition=inline", "response-content-type=text/html"):
        for url in (f"{link}&{query}", link.replace("?", f"?{query}&", 1)):
            answer = http.request("GET", url)
            told = (query, answer.status, answer.data[:200])
            assert SECRET_BYTES not in answer.data, told
            if answer.status == 200:
                assert answer.headers["content-type"] == "application/octet-stream", told
                assert answer.headers["content-disposition"].startswith("attachment; "), told
    assert http.request("GET", link.replace(quote(MINE), quote(SECRET))).status == 403
    kept = http.request("GET", site.api.presigned_get(MINE, filename="x.csv", content_type="Text/CSV; charset=utf-8"))
    assert kept.headers["content-type"] == "text/csv; charset=utf-8"


def test_a_workers_login_copies_nothing_into_its_namespace_and_nothing_out_of_it(site: Site) -> None:
    if site.worker is None:
        pytest.skip("this server has one key for all, so a worker may do everything: docs/security.md says so")
    worker, client = site.worker, site.worker._client
    worker.put_bytes(MINE, b"own")

    body = archive("victim/secret.txt", "secret.txt", "../victim/secret.txt")
    for header in HEADERS:
        for content in (b"", body):
            try:
                client._put_object(BUCKET, "evil/signed.txt", content, dict(header))
            except Exception as error:  # noqa: BLE001 - whatever the client makes of a refusal
                told = f"{type(error).__name__}: {error}"
            else:
                told = "stored"
            site.check((header, told))
            worker_upload = worker.multipart().begin("evil/parts.txt", "text/plain")
            try:
                client._upload_part(BUCKET, "evil/parts.txt", content, dict(header), worker_upload, 1)
            except Exception as error:  # noqa: BLE001
                told = f"{type(error).__name__}: {error}"
            site.check((header, told))
    for refused in (
        lambda: worker.get_bytes(SECRET),
        lambda: worker.head(SECRET),
        lambda: worker.put_bytes("victim/new.txt", b"x"),
        lambda: worker.multipart().begin("victim/new.txt", "text/plain"),
        lambda: worker.list("victim/"),
        lambda: worker.list(""),
        lambda: worker.delete(SECRET),
    ):
        with pytest.raises(Forbidden):
            refused()
        site.check("worker")
