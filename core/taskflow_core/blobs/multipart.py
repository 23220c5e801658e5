"""Multipart uploads of S3: started and completed here, while clients send the parts by links."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from minio.datatypes import Part

from taskflow_core.blobs.failures import object_errors
from taskflow_core.blobs.links import MAX_LINK_SECONDS, signing

MIN_PART_BYTES = 5 * 1024 * 1024
"""S3's own limit, for all parts but the last."""
MAX_PARTS = 10_000


@dataclass(frozen=True, slots=True)
class SentPart:
    """A part that was sent: its number from 1 on, and the `ETag` that the store answered with."""

    number: int
    etag: str


class MultipartUploads:
    """Synchronous, and may be shared by threads, as `ObjectStore`. The library has these requests, though not as public
    ones.

    All calls raise what `ObjectStore` raises; NotFound also for an upload that was completed, aborted, or is of another
    key.
    """

    def __init__(self, client: Any, signer: Any, bucket: str) -> None:
        self._client = client
        self._signer = signer
        self._bucket = bucket

    def begin(self, key: str, content_type: str) -> str:
        """Begin; the id by which the store knows it."""
        with object_errors(key):
            return str(self._client._create_multipart_upload(self._bucket, key, {"Content-Type": content_type}))  # noqa: SLF001

    def presigned_part(self, key: str, upload: str, number: int, *, seconds: int = MAX_LINK_SECONDS) -> str:
        """A URL to which the part can be sent by PUT without credentials. Needs no network."""
        with signing(key, seconds) as life:
            query = {"partNumber": str(number), "uploadId": upload}
            return str(self._signer.get_presigned_url("PUT", self._bucket, key, expires=life, extra_query_params=query))

    def complete(self, key: str, upload: str, parts: Sequence[SentPart]) -> None:
        """Make one object of the parts.

        Raises:
            Invalid: a part was not sent so, or is too small.
        """
        sent = [Part(part.number, part.etag.strip('"')) for part in sorted(parts, key=lambda part: part.number)]
        with object_errors(key):
            self._client._complete_multipart_upload(self._bucket, key, upload, sent)  # noqa: SLF001

    def abort(self, key: str, upload: str) -> None:
        """Drop the parts."""
        with object_errors(key):
            self._client._abort_multipart_upload(self._bucket, key, upload)  # noqa: SLF001

    def check(self, key: str, upload: str) -> None:
        """Raises NotFound unless it is under way."""
        with object_errors(key):
            self._client._list_parts(self._bucket, key, upload, max_parts=1)  # noqa: SLF001

    def sweep(self, before: datetime, limit: int = 1000) -> int:
        """Abort what was begun before, `limit` at most; how many that were."""
        with object_errors():
            found = self._client._list_multipart_uploads(self._bucket, max_uploads=limit)  # noqa: SLF001
        old = [each for each in found.uploads if each.initiated_time is not None and each.initiated_time < before]
        for each in old:
            self.abort(each.object_name, each.upload_id)
        return len(old)
