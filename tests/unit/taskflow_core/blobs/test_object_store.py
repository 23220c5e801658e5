import io
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from urllib3.exceptions import IncompleteRead, MaxRetryError, ReadTimeoutError
from urllib3.response import HTTPResponse

from taskflow_core.blobs.failures import object_errors, translated
from taskflow_core.blobs.store import ObjectStore
from taskflow_core.errors import Forbidden, Invalid, NotFound, TaskflowError, Unavailable
from taskflow_core.settings import StorageSettings


def _settings(endpoint: str = "http://127.0.0.1:9000") -> StorageSettings:
    return StorageSettings(endpoint=endpoint, bucket="b-1", access_key=SecretStr("k"), secret_key=SecretStr("s"))


class _Client:
    """Answers a get with what it is made with."""

    def __init__(self, body: bytes, announced: int) -> None:
        self.response = HTTPResponse(
            io.BytesIO(body), headers={"Content-Length": str(announced)}, status=200, preload_content=False
        )

    def get_object(self, bucket: str, key: str, offset: int = 0, length: int = 0) -> HTTPResponse:
        return self.response


def _store(client: Any) -> ObjectStore:
    store = ObjectStore(_settings())
    store._client = client
    return store


def test_a_download_that_ends_early_is_unavailable_and_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(Unavailable):
        _store(_Client(b"half", 8)).get_to_file("x", tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_shrinks_while_it_is_read_is_named(tmp_path: Path) -> None:
    class Shrinking:
        def put_object(self, bucket: str, key: str, data: Any, size: int, **_: Any) -> None:
            data.read(size)
            assert data.read(1) == b""
            raise OSError("stream having not enough data")

    path = tmp_path / "x"
    path.write_bytes(b"abc")
    with pytest.raises(Invalid, match="shrank from 3 bytes"):
        _store(Shrinking()).put_file("x", path)


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (404, "NoSuchKey", NotFound),
        (404, "NoSuchBucket", Unavailable),
        (403, "AccessDenied", Forbidden),
        (403, "SignatureDoesNotMatch", Forbidden),
        (500, "InternalError", Unavailable),
        (503, "SlowDown", Unavailable),
        (429, "TooManyRequests", Unavailable),
        (400, "InvalidArgument", Invalid),
        (405, "MethodNotAllowed", Invalid),
    ],
)
def test_an_answer_becomes_the_error_that_says_what_to_do(
    status: int, code: str, expected: type[TaskflowError]
) -> None:
    assert type(translated(status, code, "", "k")) is expected


_FAILURES = [
    ReadTimeoutError(None, "http://secret-host/", "slow"),  # type: ignore[arg-type]  # no pool is needed here
    MaxRetryError(None, "http://secret-host/"),  # type: ignore[arg-type]  # as above
    IncompleteRead(1, 2),
]


@pytest.mark.parametrize("failure", _FAILURES, ids=lambda failure: type(failure).__name__)
def test_no_answer_is_unavailable_without_an_address(failure: Exception) -> None:
    with pytest.raises(Unavailable) as caught, object_errors("k"):
        raise failure
    assert "secret-host" not in str(caught.value)


def test_a_key_that_no_store_takes_is_invalid() -> None:
    for key in ("", "a/../b"):
        with pytest.raises(Invalid):
            ObjectStore(_settings()).presigned_put(key)
