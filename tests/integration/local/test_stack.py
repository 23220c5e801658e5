import os
import signal
import socket
from collections.abc import Sequence
from pathlib import Path

import psycopg
import pytest
import redis
from minio import Minio
from redis.backoff import NoBackoff
from redis.retry import Retry

from taskflow_local import cli
from taskflow_local.errors import ComponentFailedError, LocalError
from taskflow_local.stack import Stack
from taskflow_local.state import Ports, port_is_free
from tests.integration.local.cluster import (
    CONTROL_PLANE,
    apply,
    is_ready,
    make_pod,
    pods,
    process_exists,
    running_pid,
    script,
    wait_for,
)

pytestmark = pytest.mark.integration


def processes_below(folder: Path) -> list[str]:
    """Every process that has the state folder in its arguments, environment or working directory."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                text = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
                where = str((entry / "cwd").readlink())
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue
            if os.fsencode(folder) in text or where.startswith(str(folder)):
                found.append(text.decode(errors="replace"))
    return found


def is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_down_leaves_no_process_and_no_port_even_when_the_node_was_killed(folder: Path) -> None:
    stack = Stack(folder, CONTROL_PLANE)
    try:
        stack.up()
        apply(stack, make_pod("left", script("import time; time.sleep(600)")))
        (pod,) = wait_for("the pod", lambda: [pod for pod in pods(stack, "left") if is_ready(pod)])
        ports = [stack.port(name) for name in ("etcd", "etcd-peer", "kube-apiserver", "kube-controller-manager")]
        assert all(is_listening(port) for port in ports)
        assert len(processes_below(folder)) == 5
        stack.stop("node", signal.SIGKILL)
        assert process_exists(running_pid(pod))
    finally:
        stack.down()
    assert processes_below(folder) == []
    assert not process_exists(running_pid(pod))
    assert not any(is_listening(port) for port in ports)
    assert not list(folder.glob("run/*.json"))


def test_a_second_up_does_nothing_and_says_so(folder: Path) -> None:
    stack = Stack(folder, ("redis", "etcd"))
    try:
        stack.up()
        before = [stack.pid(name) for name in ("redis", "etcd")]
        said: list[str] = []
        Stack(folder, ("redis", "etcd")).up(said.append)
        assert said == ["already up: every component runs and is ready"]
        assert [stack.pid(name) for name in ("redis", "etcd")] == before
    finally:
        stack.down()


def test_up_starts_again_what_died_and_leaves_the_rest_alone(folder: Path) -> None:
    stack = Stack(folder, ("redis", "etcd"))
    try:
        stack.up()
        etcd, port = stack.pid("etcd"), stack.port("redis")
        stack.stop("redis", signal.SIGKILL)
        assert [(each.name, each.running) for each in stack.status()] == [("etcd", True), ("redis", False)]
        assert cli.main(["--state", str(folder), "status"]) == cli.EXIT_NOT_READY
        stack.up()
        assert stack.pid("etcd") == etcd
        assert stack.port("redis") == port
        assert cli.main(["--state", str(folder), "status"]) == cli.EXIT_OK
    finally:
        stack.down()


def test_two_stacks_side_by_side_have_their_own_ports_data_and_secrets(folder: Path, tmp_path: Path) -> None:
    one, other = Stack(folder, ("redis",)), Stack(tmp_path, ("redis",))
    try:
        one.up()
        other.up()
        assert one.port("redis") != other.port("redis")
        first = redis.Redis.from_url(one.env()["TASKFLOW_REDIS_URL"])
        second = redis.Redis.from_url(other.env()["TASKFLOW_REDIS_URL"])
        first.set("mine", "1")
        assert second.get("mine") is None
        first.close()
        second.close()
        one.down()
        assert other.pid("redis") is not None
    finally:
        one.down()
        other.down()


def test_redis_keeps_its_data_and_its_port_over_down_and_up_and_refuses_without_password(folder: Path) -> None:
    stack = Stack(folder, ("redis",))
    try:
        stack.up()
        url = stack.env()["TASKFLOW_REDIS_URL"]
        with redis.Redis.from_url(url) as client:
            client.set("key", "value")
            assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        with (
            redis.Redis(port=stack.port("redis"), retry=Retry(NoBackoff(), 0)) as anonymous,
            pytest.raises(redis.AuthenticationError),
        ):
            anonymous.ping()
        stack.down()
        again = Stack(folder, ("redis",))
        again.up()
        assert again.env()["TASKFLOW_REDIS_URL"] == url
        with redis.Redis.from_url(url) as client:
            assert client.get("key") == b"value"
    finally:
        stack.down()


def test_postgres_runs_also_for_root_and_keeps_its_data(folder: Path) -> None:
    stack = Stack(folder, ("postgres",))
    try:
        stack.up()
        url = stack.env()["TASKFLOW_DATABASE_URL"].replace("+psycopg", "")
        with psycopg.connect(url) as connection:
            connection.execute("CREATE TABLE kept (n int)")
            connection.execute("INSERT INTO kept VALUES (7)")
        pid = stack.pid("postgres")
        assert pid is not None
        assert Path(f"/proc/{pid}").stat().st_uid != 0
        stack.down()
        stack.up()
        with psycopg.connect(url) as connection:
            assert connection.execute("SELECT n FROM kept").fetchone() == (7,)
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(url.replace("taskflow:", "taskflow:wrong"))
    finally:
        stack.down()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs PostgreSQL as another user")
def test_a_folder_that_postgres_cannot_pass_is_named(folder: Path) -> None:
    closed = folder / "closed"
    closed.mkdir(parents=True, mode=0o700)
    with pytest.raises(LocalError, match=rf"cannot enter {folder}/closed \(mode 0700\)"):
        Stack(closed / "state", ("postgres",)).up()


@pytest.mark.parametrize("server", ["minio", "versitygw"])
def test_storage_has_its_bucket_and_takes_objects(folder: Path, server: str) -> None:
    stack = Stack(folder, (server,))
    try:
        stack.up()
        env = stack.env()
        client = Minio(
            env["TASKFLOW_S3_ENDPOINT"].removeprefix("http://"),
            access_key=env["TASKFLOW_S3_ACCESS_KEY"],
            secret_key=env["TASKFLOW_S3_SECRET_KEY"],
            region=env["TASKFLOW_S3_REGION"],
            secure=False,
        )
        assert client.bucket_exists(env["TASKFLOW_S3_BUCKET"])
        path = folder / "object"
        path.write_text("content")
        client.fput_object(env["TASKFLOW_S3_BUCKET"], "a/b", str(path))
        found = [item.object_name for item in client.list_objects(env["TASKFLOW_S3_BUCKET"], recursive=True)]
        assert found == ["a/b"]
    finally:
        stack.down()


def test_a_component_that_ends_early_is_an_error_with_the_end_of_its_log(folder: Path) -> None:
    stack = Stack(folder, ("redis",), {**os.environ, "TASKFLOW_PROGRAM_REDIS_SERVER": "/bin/cat"})
    with pytest.raises(ComponentFailedError, match=r"redis ended; its log .*redis\.log ends with:\n(.|\n)*requirepass"):
        stack.up()
    stack.down()


def test_a_port_taken_by_someone_else_is_replaced_by_a_free_one(folder: Path) -> None:
    stack = Stack(folder, ("redis",))
    try:
        stack.up()
        port = stack.port("redis")
        stack.down()
        with socket.create_server(("127.0.0.1", port)):
            stack.up()
            assert stack.port("redis") != port
            with redis.Redis.from_url(stack.env()["TASKFLOW_REDIS_URL"]) as client:
                assert client.ping()
    finally:
        stack.down()


def test_what_knew_a_component_by_a_port_that_was_taken_is_started_again_with_the_new_one(folder: Path) -> None:
    stack = Stack(folder, ("etcd", "kube-apiserver"))
    try:
        stack.up()
        apiserver, port = stack.pid("kube-apiserver"), stack.port("etcd")
        stack.stop("etcd", signal.SIGKILL)
        with socket.create_server(("127.0.0.1", port)):
            stack.up()
            assert stack.port("etcd") != port
            assert stack.pid("kube-apiserver") not in (None, apiserver)
            assert all(each.ready for each in stack.status())
    finally:
        stack.down()


def test_two_stacks_that_choose_ports_at_the_same_moment_choose_different_ones() -> None:
    names: Sequence[str] = [str(number) for number in range(50)]
    with Ports() as one, Ports() as other:
        first = one.choose({}, names)
        # The other one remembers the same ports, which nobody listens on yet.
        assert not set(first.values()) & set(other.choose(first, names).values())
    assert all(port_is_free(port) for port in first.values())


def test_delete_removes_the_folder(folder: Path) -> None:
    stack = Stack(folder, ("redis",))
    stack.up()
    stack.delete()
    assert not folder.exists()
