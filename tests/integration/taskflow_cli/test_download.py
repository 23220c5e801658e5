from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from taskflow_cli.api.download import download
from taskflow_cli.errors import CliError, Exit

pytestmark = pytest.mark.integration
CONTENT = bytes(range(256)) * 8192
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class _Store(BaseHTTPRequestHandler):
    """Answers by the path; keeps the headers that it got."""

    headers_seen: list[dict[str, str]] = []  # noqa: RUF012 - shared by all requests on purpose

    def do_GET(self) -> None:
        self.headers_seen.append(dict(self.headers))
        if self.path.startswith("/gone"):
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT[: len(CONTENT) // 2] if self.path.startswith("/half") else CONTENT)

    def log_message(self, *_: object) -> None:
        """Nothing on stderr."""


@pytest.fixture
def store() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Store) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_file_is_whole_and_no_token_is_sent(store: str, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    (tmp_path / "file").write_text("old")
    size = download(f"{store}/whole?sign=1", tmp_path / "file", SHA256, lambda *each: seen.append(each))
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert seen[-1] == (size, len(CONTENT))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert not {name.lower() for each in _Store.headers_seen for name in each} & {"authorization", "cookie"}


@pytest.mark.parametrize(
    ("path", "sha256", "error", "code"),
    [
        ("gone", SHA256, "the object store answered 404 Not Found", Exit.UNREACHABLE),
        ("half", SHA256, "IncompleteRead|is not what the Task stored", None),
        ("whole", "0" * 64, "the content is not what the Task stored", Exit.ERROR),
    ],
)
def test_what_is_not_whole_replaces_nothing(
    store: str, tmp_path: Path, path: str, sha256: str, error: str, code: Exit | None
) -> None:
    (tmp_path / "file").write_text("old")
    with pytest.raises(CliError, match=error) as caught:
        download(f"{store}/{path}", tmp_path / "file", sha256, lambda *_: None)
    assert code in {None, caught.value.code}
    assert (tmp_path / "file").read_text() == "old"
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_a_store_that_is_away(tmp_path: Path) -> None:
    with pytest.raises(CliError, match=r"cannot download from http://127\.0\.0\.1:1: Connection refused") as caught:
        download("http://127.0.0.1:1/x", tmp_path / "file", SHA256, lambda *_: None)
    assert caught.value.code is Exit.UNREACHABLE
