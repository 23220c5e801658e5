"""Translates the S3 client's errors to TaskFlow's."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager

from minio.error import InvalidResponseError, S3Error, ServerError
from urllib3.exceptions import HTTPError

from taskflow_core.errors import Dependency, Forbidden, Invalid, NotFound, TaskflowError, Unavailable

_FORBIDDEN = 403
_NOT_FOUND = 404
_TRANSIENT = frozenset({408, 429})
_SERVER_ERRORS = 500


@contextmanager
def object_errors(key: str = "") -> Iterator[None]:
    """Translate what the S3 client raises inside the block; the key is named, never an address or a credential.

    A missing bucket is Unavailable, not NotFound: it is the installation that is not ready, not the user's object.

    Raises:
        NotFound, Forbidden, Invalid, Unavailable: see `ObjectStore`.
    """
    try:
        yield
    except S3Error as error:
        raise translated(error.response.status, error.code or "", error.message or "", key) from error
    except ServerError as error:
        raise translated(error.status_code, "", str(error), key) from error
    except InvalidResponseError as error:
        raise translated(error._code, "", "an answer that is not S3's", key) from error  # noqa: SLF001 - has no public name
    except HTTPError as error:
        raise Unavailable(
            f"object store: {connection_failure(error)}: {key or 'bucket'}", Dependency.OBJECT_STORE
        ) from error
    except ValueError as error:
        raise Invalid(f"object store: {key!r}: {error}") from error


def connection_failure(error: HTTPError) -> str:
    """Why there was no answer, without an address: what is wrong with the certificate, or the kind of the error."""
    cause: object = error
    while isinstance(cause, HTTPError):
        # Both libraries wrap it, one as an attribute and one as an argument.
        cause = getattr(cause, "reason", None) or next(iter(cause.args[:1]), None)
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"the certificate is refused: {cause.verify_message}"
    return type(error).__name__


def translated(status: int, code: str, message: str, key: str) -> TaskflowError:
    """Our error for an answer of the store."""
    said = f"object store: {key!r}: {status} {code} {message}".rstrip()
    if code == "NoSuchBucket" or status >= _SERVER_ERRORS or status in _TRANSIENT or code == "SlowDown":
        return Unavailable(said, Dependency.OBJECT_STORE)
    if status == _NOT_FOUND:
        return NotFound(said)
    if status == _FORBIDDEN:
        return Forbidden(said)
    return Invalid(said)
