"""Calls for files. `Client.put` and `Client.fetch` transfer the content through presigned links."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from urllib.parse import quote

from taskflow_client.calls import Call, as_model, nothing, path, query
from taskflow_client.models import FileLink, FilePage, Multipart, PartLinks, Upload

TYPE = "application/octet-stream"


def upload(namespace: str, key: str, content_type: str = TYPE) -> Call[Upload]:
    """Get a link to upload an object with one `PUT`. Tasks name its key in `inputs`."""
    return Call("POST", path(namespace, "uploads"), as_model(Upload), body={"key": key, "contentType": content_type})


def begin(namespace: str, key: str, content_type: str = TYPE) -> Call[Multipart]:
    """Start a multipart upload."""
    body = {"key": key, "contentType": content_type}
    return Call("POST", path(namespace, "multipart-uploads"), as_model(Multipart), body=body)


def sign(namespace: str, upload_id: str, parts: Sequence[int]) -> Call[PartLinks]:
    """Get links for up to 100 parts."""
    where = path(namespace, "multipart-uploads", upload_id) + ":sign"
    return Call("POST", where, as_model(PartLinks), body={"parts": list(parts)})


def complete(namespace: str, upload_id: str, etags: Mapping[int, str]) -> Call[None]:
    """Complete a multipart upload, with the ETag of each part."""
    body = {"parts": [{"number": number, "etag": etag} for number, etag in sorted(etags.items())]}
    return Call("POST", path(namespace, "multipart-uploads", upload_id) + ":complete", nothing, body=body)


def abort(namespace: str, upload_id: str) -> Call[None]:
    """Abort a multipart upload and delete its parts."""
    return Call("DELETE", path(namespace, "multipart-uploads", upload_id), nothing)


def listed(namespace: str, *, prefix: str | None = None, limit: int | None = None) -> Call[FilePage]:
    """List objects by key. `Client.pages` gets all pages."""
    params = query(prefix=prefix, limit=limit)

    def following(page: FilePage) -> Call[FilePage] | None:
        return replace(call, params=params | {"after": page.next_after}) if page.next_after else None

    call = Call("GET", path(namespace, "files"), as_model(FilePage), params=params, following=following)
    return call


def get(namespace: str, key: str) -> Call[FileLink]:
    """Get an object's properties and a link to download it."""
    return Call("GET", f"{path(namespace, 'files')}/{quote(key)}", as_model(FileLink))


def delete(namespace: str, key: str) -> Call[None]:
    """Delete an object."""
    return Call("DELETE", f"{path(namespace, 'files')}/{quote(key)}", nothing)
