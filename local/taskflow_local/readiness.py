"""Checks whether a component is ready, by its own protocol."""

import socket
import ssl
import urllib.error
import urllib.request
from http import HTTPStatus
from pathlib import Path

from taskflow_local.state import Folder, StackState

_SECONDS = 2
READY_FILE = ".ready"


def is_ready(component: str, pid: int, state: StackState, folder: Folder) -> bool:
    """Check once. The node writes a file when it is ready."""
    if component == "node":
        return _first_lines(folder.pods / READY_FILE)[:1] == [str(pid)]
    port = state.ports[component]
    if component == "redis":
        return _redis_answers(port, state.redis_password)
    if component == "postgres":
        return _postgres_ready(folder.data / "postgres" / "postmaster.pid", pid)
    scheme, path = _PROBES[component]
    return _http_ok(f"{scheme}://127.0.0.1:{port}{path}", folder.pki / "ca.crt", state.admin_token)


_PROBES = {
    "etcd": ("http", "/readyz"),
    "kube-apiserver": ("https", "/readyz"),
    "kube-controller-manager": ("https", "/healthz"),
    "minio": ("http", "/minio/health/ready"),
    "versitygw": ("http", "/health"),
    "operator": ("http", "/readyz"),
    "api": ("http", "/readyz"),
    "provisioner": ("http", "/readyz"),
    "notifier": ("http", "/readyz"),
}


def _http_ok(url: str, ca: Path, token: str) -> bool:
    secure = url.startswith("https")
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"} if secure else {})  # noqa: S310
    handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]
    if secure:
        handlers.append(urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=ca)))
    try:
        with urllib.request.build_opener(*handlers).open(request, timeout=_SECONDS) as answer:
            return bool(answer.status == HTTPStatus.OK)
    except urllib.error.HTTPError as refusal:
        refusal.close()
        return False
    except OSError:
        return False


def _redis_answers(port: int, password: str) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=_SECONDS) as connection:
            connection.sendall(f"AUTH {password}\r\nPING\r\n".encode())
            with connection.makefile("rb") as answers:
                # While Redis loads its data, it answers -LOADING.
                return (answers.readline(), answers.readline()) == (b"+OK\r\n", b"+PONG\r\n")
    except OSError:
        return False


def _postgres_ready(pid_file: Path, pid: int) -> bool:
    """Read line 8 of postmaster.pid as pg_ctl does (src/include/utils/pidfile.h: LOCK_FILE_LINE_PM_STATUS).

    Line 1 distinguishes the file of this process from one that a crash left behind.
    """
    lines = _first_lines(pid_file)
    return lines[:1] == [str(pid)] and [line.strip() for line in lines[7:8]] == ["ready"]


def _first_lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except (FileNotFoundError, PermissionError):
        return []
