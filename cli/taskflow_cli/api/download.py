"""Downloads an object by its link, into a file that is there only when it is whole."""

from __future__ import annotations

import hashlib
import http.client
import os
import ssl
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

from taskflow_cli.errors import CliError, Exit

_SECONDS = 60
_CHUNK = 1 << 20


def download(link: str, target: Path, sha256: str, progress: Callable[[int, int], None]) -> int:
    """Write what a link leads to into a file; the bytes that it has.

    The link needs no token, and none is sent: it leads to the object store, not to the API.

    Args:
        link: A presigned URL.
        target: The file; it is replaced.
        sha256: What the content has to be, hexadecimal.
        progress: Called with the bytes that are there and the bytes in total (0: not known).

    Raises:
        CliError: the object store did not answer, refused, or stopped before the end; or the content is another one.
    """
    url = urlsplit(link)
    what = f"cannot download from {url.scheme}://{url.netloc}"
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name[:100]}-")
    path = Path(name)
    try:
        with os.fdopen(handle, "wb") as file, closing(_connection(url.scheme, url.hostname or "", url.port)) as asked:
            asked.request("GET", f"{url.path}?{url.query}")
            with closing(asked.getresponse()) as response:
                if response.status != http.client.OK:
                    why = f"the object store answered {response.status} {response.reason}"
                    raise CliError(what, why, code=Exit.UNREACHABLE)
                done, found = _copy(response, file, progress)
        if found != sha256:
            raise CliError(what, f"after {done} bytes, the content is not what the Task stored", hint="try again")
        # mkstemp gives the file to its owner alone; downloads are like other files that a user makes.
        mask = os.umask(0)
        os.umask(mask)
        path.chmod(0o666 & ~mask)
        path.replace(target)
    except (http.client.HTTPException, OSError) as error:
        raise CliError(what, getattr(error, "strerror", None) or str(error), code=Exit.UNREACHABLE) from None
    finally:
        path.unlink(missing_ok=True)
    return done


def _copy(response: http.client.HTTPResponse, file: BinaryIO, progress: Callable[[int, int], None]) -> tuple[int, str]:
    """How many bytes there were, and their SHA-256."""
    done, digest, total = 0, hashlib.sha256(), int(response.getheader("Content-Length") or 0)
    while chunk := response.read(_CHUNK):
        file.write(chunk)
        digest.update(chunk)
        done += len(chunk)
        progress(done, total)
    return done, digest.hexdigest()


def _connection(scheme: str, host: str, port: int | None) -> http.client.HTTPConnection:
    if scheme == "http":
        return http.client.HTTPConnection(host, port, timeout=_SECONDS)
    return http.client.HTTPSConnection(host, port, context=ssl.create_default_context(), timeout=_SECONDS)
