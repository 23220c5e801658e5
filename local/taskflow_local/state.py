"""The state folder of a stack: where its files are, and the saved ports, secrets and component names."""

import base64
import contextlib
import fcntl
import os
import random
import secrets
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from pydantic import BaseModel, Field

from taskflow_local.errors import LocalError

# Below the kernel's ephemeral range (32768 and up), so that no outgoing connection takes a remembered port.
_FIRST_PORT, _LAST_PORT = 15000, 31999


def _random_hex() -> str:
    return secrets.token_hex(32)


class WorkerLogin(BaseModel):
    """The credentials of the workers of one namespace."""

    redis_password: str = Field(default_factory=_random_hex)
    s3_secret_key: str = Field(default_factory=_random_hex)
    since: datetime = Field(default_factory=lambda: datetime.now(UTC).replace(microsecond=0))


class StackState(BaseModel):
    """The content of `stack.json` (mode 0600)."""

    components: list[str] = []
    ports: dict[str, int] = {}
    namespaces: list[str] = ["default"]
    workers: dict[str, WorkerLogin] = {}
    """By namespace; see `worker`."""
    admin_token: str = Field(default_factory=_random_hex)
    controller_manager_token: str = Field(default_factory=_random_hex)
    redis_password: str = Field(default_factory=_random_hex)
    redis_operator_password: str = Field(default_factory=_random_hex)
    redis_api_password: str = Field(default_factory=_random_hex)
    postgres_password: str = Field(default_factory=_random_hex)
    postgres_admin_password: str = Field(default_factory=_random_hex)
    s3_access_key: str = Field(default_factory=lambda: secrets.token_hex(10))
    s3_secret_key: str = Field(default_factory=_random_hex)
    s3_api_secret_key: str = Field(default_factory=_random_hex)
    token_key: str = Field(default_factory=_random_hex)
    webhooks_key: str = Field(default_factory=lambda: base64.urlsafe_b64encode(secrets.token_bytes(32)).decode())
    client_token: str | None = None
    handlers: list[str] = []
    """Files and folders of the developer's own handlers."""

    @property
    def has_provisioner(self) -> bool:
        """A process of this stack keeps the logins of workers, and local mode itself does not."""
        return "provisioner" in self.components

    @property
    def api_server(self) -> str:
        """Base URL of the API server. Invalid before its port is chosen."""
        return f"https://127.0.0.1:{self.ports.get('kube-apiserver', 0)}"

    def worker(self, namespace: str) -> WorkerLogin:
        """The login of a namespace's workers. The first call creates it, after which the state must be saved."""
        return self.workers.setdefault(namespace, WorkerLogin())


class Folder:
    """The paths inside the state folder."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.pki = self.root / "pki"
        self.conf = self.root / "conf"
        self.run = self.root / "run"
        self.logs = self.root / "log"
        self.data = self.root / "data"
        self.pods = self.root / "pods"
        self.bin = self.root / "bin"
        self.handlers = self.root / "handlers"
        self.kubeconfig = self.root / "kubeconfig"
        self._state_file = self.root / "stack.json"

    def create(self) -> None:
        """Create the folders. As root, only the path to PostgreSQL's data is accessible to other users."""
        passable = 0o711 if os.geteuid() == 0 else 0o700
        for folder, mode in (
            (self.root, passable),
            (self.data, passable),
            (self.bin, passable),
            (self.pki, 0o700),
            (self.conf, 0o700),
            (self.run, 0o700),
            (self.logs, 0o700),
            (self.pods, 0o700),
            (self.handlers, 0o700),
        ):
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(mode)

    def load(self) -> StackState:
        """Read the saved state, or create a new one with new secrets if there is none."""
        try:
            return StackState.model_validate_json(self._state_file.read_text())
        except FileNotFoundError:
            return StackState()
        except ValueError as error:
            raise LocalError(
                f"{self._state_file}: expected the state of a stack, found something else ({error}); "
                "restore it or remove the state folder"
            ) from error

    def save(self, state: StackState) -> None:
        """Write the state, atomically."""
        write_private(self._state_file, state.model_dump_json(indent=1))

    def record(self, component: str) -> Path:
        """The pid file of a component."""
        return self.run / f"{component}.json"

    def log(self, component: str) -> Path:
        """The log of a component."""
        return self.logs / f"{component}.log"

    @contextlib.contextmanager
    def locked(self, say: Callable[[str], None]) -> Iterator[None]:
        """Let one command at a time change this stack. Logs when it must wait."""
        with (self.root / "lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say("waiting for another command that changes this stack")
                fcntl.flock(file, fcntl.LOCK_EX)
            yield


def write_private(path: Path, content: str) -> None:
    """Write a file that only its owner may read, atomically."""
    part = path.with_name(f".{path.name}.part")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(content)
    part.replace(path)


def default_state(environ: Mapping[str, str], *, root: bool) -> Path:
    """The state folder if the user names none."""
    if given := environ.get("TASKFLOW_LOCAL_STATE"):
        return Path(given)
    if root:
        return Path("/var/lib/taskflow/default")
    base = environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "taskflow" / "default"


class Ports:
    """Free loopback ports, claimed against other stacks that choose at the same time.

    A claim is an abstract Unix socket named after the port. It needs no file and ends with the process.
    """

    def __init__(self, is_free: Callable[[int], bool] | None = None) -> None:
        self._is_free = is_free or port_is_free
        self._claims: list[socket.socket] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for claim in self._claims:
            claim.close()

    def choose(self, remembered: Mapping[str, int], names: Iterable[str]) -> dict[str, int]:
        """Choose a port for each name: the remembered one if it is free, else a new one."""
        chosen: dict[str, int] = {}
        for name in names:
            port = remembered.get(name)
            while port is None or port in chosen.values() or not self._claim(port):
                port = random.randint(_FIRST_PORT, _LAST_PORT)  # noqa: S311 - no secret
            chosen[name] = port
        return chosen

    def _claim(self, port: int) -> bool:
        claim = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            claim.bind(f"\0taskflow-local-port-{port}")
        except OSError:
            claim.close()
            return False
        if not self._is_free(port):
            claim.close()
            return False
        self._claims.append(claim)
        return True


def port_is_free(port: int) -> bool:
    """Try to listen on a loopback port, as a component does."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
