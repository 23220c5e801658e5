"""The whole product with a Redis behind Sentinels: its primary dies in the middle of work, and changes places later."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from pydantic import SecretStr

from taskflow_core.errors import Unavailable
from taskflow_core.settings import RedisSettings
from taskflow_local.components import Component
from taskflow_local.stack import Stack
from tests.api_server import TASKS
from tests.e2e.own_stack import own_stack
from tests.e2e.product import Product, eventually, has_condition, records, task
from tests.integration.taskflow_worker.test_tls import CLIENTS, ping, ping_async

pytestmark = pytest.mark.integration
NAME = "main"
HOST = "127.0.0.1"
SENTINELS = 3
SLOTS = 4
POOL = {
    "apiVersion": "taskflow.dev/v1alpha1",
    "kind": "WorkerPool",
    "metadata": {"name": "main"},
    "spec": {
        "queues": ["default"],
        "concurrency": SLOTS,
        "template": {
            "spec": {
                "containers": [
                    {"name": "worker", "env": [{"name": "TASKFLOW_WORKER_HANDLERS", "value": "e2e_handlers"}]}
                ]
            }
        },
    },
}


def free_port() -> int:
    with socket.create_server((HOST, 0)) as free:
        return int(free.getsockname()[1])


class Servers:
    """Processes of Redis and of Sentinels."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self, port: int, *lines: str, sentinel: bool = False) -> None:
        # A Sentinel writes into its file.
        folder = self._folder / f"redis-{port}"
        folder.mkdir(mode=0o700)
        file = folder / "redis.conf"
        file.write_text("\n".join((f"bind {HOST}", f"dir {folder}", 'save ""', *lines)) + "\n")
        with (folder / "log").open("ab") as log:
            mode = ["--sentinel"] if sentinel else []
            self._processes.append(subprocess.Popen(["redis-server", file, *mode], stdout=log))

    def end(self) -> None:
        for process in self._processes:
            process.terminate()
            process.wait()


class Followed(Stack):
    """A stack whose components find Redis by Sentinels. Its own Redis is the primary at first."""

    servers: Servers | None = None
    second: int
    """Port of the other Redis."""
    sentinels: tuple[int, ...] = ()

    def _wait_ready(self, component: Component) -> None:
        super()._wait_ready(component)
        if component.name == "redis" and self.servers is None:
            self._follow()

    def _follow(self) -> None:
        first, self.second = self.port("redis"), free_port()
        self.servers = Servers(self.folder.root.parent)
        self.start_replica(self.second, first)
        eventually(lambda: self.redis(self.second).info("replication")["master_link_status"], lambda is_: is_ == "up")
        self.redis(first).config_set("masterauth", self._state.redis_password)
        self.sentinels = tuple(free_port() for _ in range(SENTINELS))
        for port in self.sentinels:
            self.servers.start(
                port,
                f"port {port}",
                f"sentinel monitor {NAME} {HOST} {first} 2",
                f"sentinel auth-pass {NAME} {self._state.redis_password}",
                f"sentinel down-after-milliseconds {NAME} 2000",
                f"sentinel failover-timeout {NAME} 5000",
                sentinel=True,
            )
        for port in self.sentinels:
            eventually(
                lambda port=port: self.known(port),  # type: ignore[misc]
                lambda found: (found.get("num-slaves"), found.get("num-other-sentinels")) == (1, SENTINELS - 1),
            )

    def start_replica(self, port: int, primary: int) -> None:
        """Start a Redis. It knows the users of nobody but its administrator."""
        assert self.servers is not None
        password = self._state.redis_password
        self.servers.start(
            port,
            f"port {port}",
            f"requirepass {password}",
            f"masterauth {password}",
            f"replicaof {HOST} {primary}",
            "repl-diskless-sync-delay 0",
        )

    def redis(self, port: int) -> Any:
        """One server, as its administrator."""
        return redis.Redis(port=port, password=self._state.redis_password, decode_responses=True)

    def known(self, sentinel: int) -> dict[str, Any]:
        """What a Sentinel knows of the primary."""
        try:
            with redis.Redis(port=sentinel, decode_responses=True) as client:
                return dict(client.sentinel_masters()[NAME])
        except redis.ConnectionError:
            return {}

    def component_env(self, name: str) -> dict[str, str]:
        """With the Sentinels in the place of Redis."""
        found = super().component_env(name)
        if not self.sentinels:
            return found
        one = re.compile(rf"redis://([^@]*)@{re.escape(HOST)}:{self.port('redis')}/0")
        sentinels = ",".join(f"{HOST}:{port}" for port in self.sentinels)
        return {key: one.sub(rf"redis+sentinel://\1@{sentinels}/{NAME}/0", value) for key, value in found.items()}

    def down(self, *args: Any, **kwargs: Any) -> None:
        super().down(*args, **kwargs)
        if self.servers is not None:
            self.servers.end()


@pytest.fixture
def product() -> Iterator[Product]:
    with own_stack(
        "provisioner",
        kind=Followed,
        audited=False,
        TASKFLOW_PROVISIONER_CHECK_SECONDS="1",
    ) as product:
        product.apply(POOL)
        product.kubectl("wait", "tfp/main", "--for=condition=Ready", "--timeout=60s")
        yield product


def test_a_failover_in_the_middle_of_work_loses_nothing(product: Product, tmp_path: Path) -> None:
    stack = product.stack
    assert isinstance(stack, Followed)
    first, second = stack.port("redis"), stack.second

    # The primary dies, and its replica takes its place. What ends meanwhile is told afterwards.
    work = Work(product, tmp_path / "killed")
    work.start(24)
    replicated(stack, first)
    stack.stop("redis", signal.SIGKILL)
    work.gate.touch()
    more = Work(product, tmp_path / "meanwhile")
    more.gate.touch()
    more.start(12)
    work.all_ran_once()
    more.all_ran_once()
    assert {stack.known(port)["port"] for port in stack.sentinels} == {second}
    assert stack.redis(second).info("replication")["role"] == "master"

    # The former one is back as a replica, and they change places: both are alive, and the worker waits for messages.
    workers = product.worker_pids()
    stack.start_replica(first, second)
    work = Work(product, tmp_path / "planned")
    work.start(SLOTS - 2)
    eventually(
        lambda: stack.redis(first).info("replication").get("master_link_status"), lambda is_: is_ == "up", seconds=60
    )
    replicated(stack, second)
    # Without it, it would take writes for another ten seconds that are lost.
    stack.redis(second).config_set("min-replicas-to-write", 1)
    eventually(lambda: fail_over(stack), bool, 60)
    work.gate.touch()
    work.all_ran_once()
    eventually(lambda: stack.redis(second).info("replication")["role"], lambda role: role == "slave")

    # The API's cache is the new primary too.
    work = Work(product, tmp_path / "after")
    work.gate.touch()
    work.start(12)
    work.all_ran_once()
    assert product.worker_pids() == workers
    eventually(lambda: cache_status(product, "/v1/namespaces/default/tasks?limit=5"), lambda said: "hit" in said)


class Work:
    """Tasks that wait for a file."""

    def __init__(self, product: Product, folder: Path) -> None:
        folder.mkdir()
        self._product, self._record = product, folder / "record"
        self.gate = folder / "gate"
        self._names: list[str] = []

    def start(self, count: int) -> None:
        """Returns once as many of them run as there are slots."""
        self._names = [f"{self.gate.parent.name}-{number}" for number in range(count)]
        arguments = {"record": str(self._record), "path": str(self.gate)}
        self._product.apply(*(task(name, "e2e.wait_for_file", kwargs=arguments) for name in self._names))
        if not self.gate.exists():
            eventually(lambda: len(records(self._record, "start")), lambda running: running == min(count, SLOTS))

    def all_ran_once(self) -> None:
        def mine() -> list[dict[str, Any]]:
            listed = self._product.api_server.list(TASKS)
            return [each for each in listed if each["metadata"]["name"] in self._names]

        found = eventually(mine, lambda tasks: all(has_condition(each, "Finished") for each in tasks), 90)
        assert Counter(each["status"]["phase"] for each in found) == {"Succeeded": len(self._names)}
        assert {each["status"]["attempts"] for each in found} == {1}
        for what in ("start", "end"):
            ran = Counter(line["uid"] for line in records(self._record, what))
            assert ran == Counter(each["metadata"]["uid"] for each in found)


def replicated(stack: Followed, primary: int) -> None:
    """Wait until the replica has all that was written."""
    with stack.redis(primary) as client:
        assert client.wait(1, 10_000) == 1


def fail_over(stack: Followed) -> bool:
    """Let a Sentinel promote the replica; it refuses until it has heard from it."""
    with redis.Redis(port=stack.sentinels[0]) as client:
        try:
            client.execute_command("SENTINEL", "FAILOVER", NAME)
        except redis.ResponseError:
            return False
    return True


def cache_status(product: Product, path: str) -> str:
    environment = product.stack.env()
    headers = {"Authorization": f"Bearer {environment['TASKFLOW_API_TOKEN']}"}
    request = urllib.request.Request(environment["TASKFLOW_API_URL"] + path, headers=headers)
    with urllib.request.urlopen(request, timeout=20) as answer:
        return str(answer.headers.get("Cache-Status", ""))


@pytest.fixture(scope="module")
def secure(authority: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisSettings]:
    """A Redis and a Sentinel, both by TLS only, after a Sentinel that is not there."""
    servers, primary, sentinel = Servers(tmp_path_factory.mktemp("secure")), free_port(), free_port()
    tls = (
        "port 0",
        f"tls-cert-file {authority / 'server.crt'}",
        f"tls-key-file {authority / 'server.key'}",
        f"tls-ca-cert-file {authority / 'ca.crt'}",
        "tls-auth-clients no",
        "tls-replication yes",
    )
    url = f"rediss+sentinel://:word@{HOST}:1,{HOST}:{sentinel}/{NAME}/0"
    settings = RedisSettings(url=SecretStr(url), ca=(authority / "ca.crt").read_text())
    try:
        servers.start(primary, *tls, f"tls-port {primary}", "requirepass word")
        lines = (f"sentinel monitor {NAME} {HOST} {primary} 1", f"sentinel auth-pass {NAME} word")
        servers.start(sentinel, *tls, f"tls-port {sentinel}", *lines, sentinel=True)
        eventually(lambda: refusal(ping, settings), lambda said: said == "")
        yield settings
    finally:
        servers.end()


@pytest.mark.parametrize("client", CLIENTS)
def test_sentinels_and_primary_are_verified_by_the_given_authorities(
    client: Callable[[RedisSettings], None], secure: RedisSettings
) -> None:
    client(secure)
    assert "CERTIFICATE_VERIFY_FAILED" in refusal(client, RedisSettings(url=secure.url))


@pytest.mark.parametrize("client", [ping, ping_async])
def test_a_primary_that_no_sentinel_knows_is_named(
    client: Callable[[RedisSettings], None], secure: RedisSettings
) -> None:
    other = SecretStr(secure.url.get_secret_value().replace(f"/{NAME}/", "/other/"))
    said = refusal(client, RedisSettings(url=other, ca=secure.ca))
    assert f"no Sentinel says where the primary other is: {HOST}:1: " in said
    assert said.endswith("it does not know it")
    assert "word" not in said


def refusal(client: Callable[[RedisSettings], None], settings: RedisSettings) -> str:
    """Why it fails, if it does."""
    try:
        client(settings)
    except Unavailable as error:
        return str(error)
    return ""
