"""The object store, by the subset of S3 that all servers have: path style, one bucket, no versions, no ACLs.

Synchronous; an event loop calls it through `asyncio.to_thread`. One instance may be shared by threads.
"""

from __future__ import annotations

import hashlib
import io
import os
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, BinaryIO
from urllib.parse import urlsplit

import certifi
import urllib3
from minio import Minio
from minio.credentials import Credentials, Provider
from minio.deleteobjects import DeleteObject

from taskflow_core.blobs.failures import object_errors
from taskflow_core.blobs.links import MAX_LINK_SECONDS, UNKNOWN_TYPE, attachment, inert, signing
from taskflow_core.blobs.multipart import MultipartUploads
from taskflow_core.errors import Conflict, Dependency, Invalid, Unavailable
from taskflow_core.settings import StorageSettings

CONNECT_SECONDS = 5
READ_SECONDS = 60
MAX_INLINE_BYTES = 16 * 1024 * 1024
_CHUNK_BYTES = 1024 * 1024
_NO_KEY = "-/taskflow-link-check"
"""In no namespace: none has this name."""
_PART_BYTES = 16 * 1024 * 1024
_MAX_PARTS = 10_000
"""S3's own limit."""


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """What the store knows of an object."""

    key: str
    size: int
    etag: str
    modified: datetime
    content_type: str | None
    """None in a listing, which S3 makes without it."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What was written or read: size in bytes and SHA-256, hexadecimal."""

    size: int
    sha256: str


class ObjectStore:
    """One bucket.

    All calls raise NotFound (no such object), Forbidden (key or policy refused), Invalid (can never succeed) and
    Unavailable (no answer, 5xx, no such bucket yet). A refused connection is tried once more at once, nothing else is:
    whoever calls knows how long it may wait, and the client's own five retries would hide up to minutes.

    Args:
        settings: where it is, and as whom.
        connect_seconds: how long a connection may take.
        read_seconds: how long an answer may.
        connections: as many as are kept, when so many threads share it. More are made where they are needed.
    """

    def __init__(
        self,
        settings: StorageSettings,
        *,
        connect_seconds: float = CONNECT_SECONDS,
        read_seconds: float = READ_SECONDS,
        connections: int = 16,
    ) -> None:
        self._bucket = settings.bucket
        self._client: Any = _client(
            settings,
            settings.endpoint,
            urllib3.PoolManager(
                maxsize=max(connections, 16),
                timeout=urllib3.Timeout(connect=connect_seconds, read=read_seconds),
                retries=urllib3.Retry(total=1, connect=1, read=0, status=0, other=0, redirect=0),
                ssl_context=tls_context(settings),
            ),
        )
        # The host is part of what is signed, so a link for clients outside is signed for the host that they ask.
        self._signer: Any = self._client
        if settings.public_endpoint:
            self._signer = _client(settings, settings.public_endpoint, None)

    def multipart(self) -> MultipartUploads:
        """Uploads in parts."""
        return MultipartUploads(self._client, self._signer, self._bucket)

    def check(self) -> None:
        """Raises Unavailable or Forbidden unless the bucket can be reached."""
        with object_errors():
            if not self._client.bucket_exists(self._bucket):
                raise Unavailable(
                    f"object store: there is no bucket {self._bucket!r}; create it", Dependency.OBJECT_STORE
                )

    def put_file(self, key: str, path: Path, content_type: str = "application/octet-stream") -> Stored:
        """Store a file, in parts of 16 MiB; at most one part is in memory.

        Raises:
            Invalid: the file shrank while it was read. What is appended meanwhile is not stored.
        """
        with path.open("rb") as file:
            return self._put(key, file, os.fstat(file.fileno()).st_size, content_type)

    def put_bytes(self, key: str, content: bytes, content_type: str = "application/octet-stream") -> Stored:
        """Store a small object."""
        return self._put(key, io.BytesIO(content), len(content), content_type)

    def _put(self, key: str, source: BinaryIO, size: int, content_type: str) -> Stored:
        hashing = _HashingReader(source)
        part = max(_PART_BYTES, -(-size // _MAX_PARTS))
        with object_errors(key):
            try:
                self._client.put_object(
                    self._bucket,
                    key,
                    hashing,
                    size,
                    content_type=content_type,
                    part_size=part,
                    num_parallel_uploads=1,
                )
            except OSError as error:
                if hashing.ended:
                    raise Invalid(f"{key}: the file shrank from {size} bytes while it was stored") from error
                raise
        return Stored(size=size, sha256=hashing.digest.hexdigest())

    def get_to_file(self, key: str, path: Path) -> Stored:
        """Fetch an object into a file, which appears whole or not at all.

        Raises:
            Unavailable: the connection ended before the announced size was there.
        """
        with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name[:64]}.", delete=False) as file:
            try:
                digest, size = hashlib.sha256(), 0
                for chunk in self._chunks(key, None):
                    file.write(chunk)
                    digest.update(chunk)
                    size += len(chunk)
                file.flush()
                Path(file.name).replace(path)
            except BaseException:
                Path(file.name).unlink(missing_ok=True)
                raise
        return Stored(size=size, sha256=digest.hexdigest())

    def get_bytes(self, key: str, limit: int = MAX_INLINE_BYTES) -> bytes:
        """Fetch a small object.

        Raises:
            Invalid: it has more than `limit` bytes.
        """
        return b"".join(self._chunks(key, limit))

    def stream(self, key: str) -> Iterator[bytes]:
        """Fetch an object piece by piece; the errors of all calls come while it is read."""
        return self._chunks(key, None)

    def get_range(self, key: str, start: int, length: int, etag: str = "") -> bytes:
        """A part of an object, `length` bytes from `start` on; both within it.

        Raises:
            Unavailable: it is shorter, or the connection ended before.
            Conflict: it is another one than that of the ETag, if one is given.
        """
        with object_errors(key):
            response = self._client.get_object(self._bucket, key, offset=start, length=length)
            try:
                if etag and response.headers["ETag"].strip('"') != etag:
                    raise Conflict(f"object {key!r} is another one than it was")
                content = bytes(response.read())
            finally:
                response.close()
        if len(content) != length:
            raise Unavailable(
                f"object store: {key!r} has {len(content)} of {length} bytes from {start} on", Dependency.OBJECT_STORE
            )
        return content

    def _chunks(self, key: str, limit: int | None) -> Iterator[bytes]:
        """The content; the size is checked against the header, before the start for `limit` and at the end."""
        with object_errors(key):
            response = self._client.get_object(self._bucket, key)
            try:
                announced = int(response.headers["Content-Length"])
                if limit is not None and announced > limit:
                    raise Invalid(f"object {key!r} has {announced} bytes; at most {limit} are read at once")
                size = 0
                for chunk in response.stream(_CHUNK_BYTES, decode_content=False):
                    size += len(chunk)
                    yield chunk
                if size != announced:
                    raise Unavailable(
                        f"object store: {key!r} ended after {size} of {announced} bytes", Dependency.OBJECT_STORE
                    )
            finally:
                # Not `release_conn`: after a broken read the connection would be used again with bytes still in it.
                response.close()

    def head(self, key: str) -> ObjectInfo:
        """What the store knows of one object."""
        with object_errors(key):
            return _info(self._client.stat_object(self._bucket, key))

    def list(self, prefix: str, *, start_after: str = "", limit: int = 1000) -> list[ObjectInfo]:
        """Up to `limit` objects whose keys begin with `prefix` and sort after `start_after`, in order of keys."""
        with object_errors(prefix):
            found = self._client.list_objects(
                self._bucket, prefix=prefix, recursive=True, start_after=start_after or None
            )
            return [_info(each) for each in islice(found, limit)]

    def delete(self, key: str) -> None:
        """Delete an object; fine when there is none."""
        with object_errors(key):
            self._client.remove_object(self._bucket, key)

    def delete_prefix(self, prefix: str) -> int:
        """Delete all objects below a prefix that ends in `/`; how many there were.

        Raises:
            Invalid: the prefix would take more than it says, as `team-a` takes `team-ab/x`.
            Unavailable: some could not be deleted; the rest is gone.
        """
        if not prefix.strip("/") or not prefix.endswith("/"):
            raise Invalid(f"expected a prefix that ends in '/', found {prefix!r}")
        count = 0
        while keys := [each.key for each in self.list(prefix)]:
            with object_errors(prefix):
                refused = list(self._client.remove_objects(self._bucket, [DeleteObject(key) for key in keys]))
            if refused:
                raise Unavailable(
                    f"object store: could not delete {refused[0].name!r}: {refused[0].message}", Dependency.OBJECT_STORE
                )
            count += len(keys)
        return count

    def presigned_get(
        self, key: str, *, seconds: int = MAX_LINK_SECONDS, filename: str = "", content_type: str = UNKNOWN_TYPE
    ) -> str:
        """A URL that fetches the object without credentials; a browser saves it as `filename`. Needs no network.

        Whatever type is stored, the answer has the given one, or that of unknown bytes where a browser could run it.

        Raises:
            Invalid: `seconds` is not 1..900.
        """
        with signing(key, seconds) as life:
            answer = {
                "response-content-disposition": attachment(filename),
                "response-content-type": inert(content_type),
            }
            return str(self._signer.presigned_get_object(self._bucket, key, expires=life, response_headers=answer))

    def presigned_put(self, key: str, *, seconds: int = MAX_LINK_SECONDS) -> str:
        """A URL to which the content can be sent by PUT without credentials. Needs no network.

        Raises:
            Invalid: `seconds` is not 1..900.
        """
        with signing(key, seconds) as life:
            return str(self._signer.presigned_put_object(self._bucket, key, expires=life))

    def links_can_copy(self) -> bool:
        """Whether somebody who has a link to upload can make of it a copy of any object that we may read.

        Some servers heed the header for that although the link does not sign it. It is tried with a source that does
        not exist: who looks for it would copy it.

        Raises:
            Unavailable: the server does not answer.
        """
        source = f"/{self._bucket}/{_NO_KEY}-source"
        with signing(_NO_KEY, 60) as life, object_errors(_NO_KEY):
            link = self._client.presigned_put_object(self._bucket, _NO_KEY, expires=life)
            answer = self._client._http.request("PUT", link, headers={"x-amz-copy-source": source})  # noqa: SLF001 - its pool has our time limits
            if answer.status < 300:  # noqa: PLR2004 - HTTP's own border
                # It took no notice of the header, and stored what was sent: nothing.
                self.delete(_NO_KEY)
            return bool(answer.status == 404)  # noqa: PLR2004 - the source


def tls_context(settings: StorageSettings) -> ssl.SSLContext:
    """Verifies the server by the public authorities, or those in `SSL_CERT_FILE`, and by those of the settings."""
    context = ssl.create_default_context(cafile=os.environ.get("SSL_CERT_FILE") or certifi.where())
    if settings.ca:
        context.load_verify_locations(cadata=settings.ca)
    return context


class S3Login(Provider):  # type: ignore[misc]
    """The key of the settings, looked up for each request: if it is in files, it may have changed."""

    def __init__(self, settings: StorageSettings) -> None:
        self._settings = settings

    def retrieve(self) -> Credentials:
        """The key as it is now.

        Raises:
            Unavailable: a file cannot be read.
        """
        token = self._settings.session_token
        try:
            return Credentials(
                self._settings.access_key.get_secret_value(),
                self._settings.secret_key.get_secret_value(),
                None if token is None else token.get_secret_value(),
            )
        except (OSError, ValueError) as error:
            said = error.strerror if isinstance(error, OSError) else "it is empty or not UTF-8"
            raise Unavailable(f"object store: its key cannot be read again: {said}", Dependency.OBJECT_STORE) from None


def _client(settings: StorageSettings, endpoint: str, http: urllib3.PoolManager | None) -> Any:
    url = urlsplit(endpoint)
    client = Minio(
        url.netloc,
        credentials=S3Login(settings),
        secure=url.scheme == "https",
        region=settings.region,
        http_client=http,
    )
    client.disable_virtual_style_endpoint()
    return client


class _HashingReader:
    """Digest of what passes through, so that a file is read once."""

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self.digest = hashlib.sha256()
        self.ended = False

    def read(self, amount: int = -1) -> bytes:
        chunk = self._source.read(amount)
        self.ended = not chunk and amount != 0
        self.digest.update(chunk)
        return chunk


def _info(found: Any) -> ObjectInfo:
    return ObjectInfo(
        key=found.object_name,
        size=found.size,
        etag=(found.etag or "").strip('"'),
        modified=found.last_modified,
        content_type=found.content_type,
    )
