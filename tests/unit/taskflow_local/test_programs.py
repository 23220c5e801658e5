from dataclasses import dataclass, field
from pathlib import Path

import pytest

from taskflow_local.catalogue import PROGRAMS, Program
from taskflow_local.errors import ProgramMissingError
from taskflow_local.programs import Log, Machine, Resolver
from taskflow_local.versions import Version

Made = tuple[str, str]


@dataclass
class FakeMachine(Machine):
    """A machine with some programs. Records what it was asked to install, download and build."""

    installed: dict[str, Version | None] = field(default_factory=dict)
    existing: set[Path] = field(default_factory=set)
    has_network: bool = True
    has_apt: bool = False
    made: list[Made] = field(default_factory=list)

    def which(self, name: str, path: str) -> str | None:
        candidate = f"{path}/{name}"
        return candidate if candidate in self.installed else None

    def folders(self, pattern: str) -> list[str]:
        return ["/usr/lib/postgresql/17/bin", "/usr/lib/postgresql/15/bin"]

    def is_program(self, path: Path) -> bool:
        return path in self.existing

    def version(self, path: str, arguments: tuple[str, ...]) -> Version | None:
        return self.installed[path]

    def can_install(self) -> bool:
        return self.has_apt

    def install(self, package: str, log: Log) -> None:
        self.made.append(("install", package))
        self.installed[f"/bin/{package}"] = (7, 2)

    def fetch(self, program: Program, target: Path) -> bool:
        self.made.append(("fetch", program.name))
        if not self.has_network:
            raise OSError("Name or service not known")
        self.existing.add(target)
        return True

    def build(self, program: Program, target: Path, cache: Path, log: Log) -> None:
        self.made.append(("build", program.name))
        self.existing.add(target)


def make_resolver(machine: FakeMachine, cache: Path, **environ: str) -> tuple[Resolver, list[str]]:
    said: list[str] = []
    return Resolver({"PATH": "/bin", **environ}, said.append, machine, cache), said


def test_a_path_given_by_the_user_comes_first_and_its_version_is_not_questioned(tmp_path: Path) -> None:
    machine = FakeMachine(installed={"/bin/etcd": (3, 6, 1)}, existing={Path("/opt/etcd")})
    resolver, _ = make_resolver(machine, tmp_path, TASKFLOW_PROGRAM_ETCD="/opt/etcd")
    assert resolver.resolve("etcd") == Path("/opt/etcd")


def test_a_wrong_path_given_by_the_user_is_an_error_without_fallback(tmp_path: Path) -> None:
    machine = FakeMachine(installed={"/bin/kube-apiserver": (1, 36, 3)})
    resolver, _ = make_resolver(machine, tmp_path, TASKFLOW_PROGRAM_KUBE_APISERVER="/opt/typo")
    with pytest.raises(ProgramMissingError, match="TASKFLOW_PROGRAM_KUBE_APISERVER=/opt/typo: expected an executable"):
        resolver.resolve("kube-apiserver")
    assert machine.made == []


def test_a_program_on_path_is_taken_when_it_is_new_enough(tmp_path: Path) -> None:
    resolver, _ = make_resolver(FakeMachine(installed={"/bin/etcd": (3, 6, 0)}), tmp_path)
    assert resolver.resolve("etcd") == Path("/bin/etcd")


@pytest.mark.parametrize("version", [(1, 32, 4), (1, 38, 0), None])
def test_a_kubectl_too_far_from_the_server_is_passed_over(tmp_path: Path, version: Version | None) -> None:
    machine = FakeMachine(installed={"/bin/kubectl": version})
    resolver, _ = make_resolver(machine, tmp_path)
    assert resolver.resolve("kubectl").parent == tmp_path
    assert machine.made == [("fetch", "kubectl")]


def test_a_cached_program_is_neither_downloaded_nor_built(tmp_path: Path) -> None:
    go = PROGRAMS["etcd"].go
    assert go is not None
    cached = tmp_path / f"etcd-{go.fingerprint()}"
    machine = FakeMachine(existing={cached})
    resolver, _ = make_resolver(machine, tmp_path)
    assert resolver.resolve("etcd") == cached
    assert machine.made == []


def test_without_network_one_download_is_tried_and_everything_is_built(tmp_path: Path) -> None:
    machine = FakeMachine(has_network=False)
    resolver, said = make_resolver(machine, tmp_path)
    for name in ("etcd", "kube-apiserver", "minio"):
        resolver.resolve(name)
    assert machine.made == [("fetch", "etcd"), ("build", "etcd"), ("build", "kube-apiserver"), ("build", "minio")]
    assert len(said) == 1
    assert "building from source instead" in said[0]


def test_downloads_can_be_switched_off(tmp_path: Path) -> None:
    machine = FakeMachine()
    resolver, said = make_resolver(machine, tmp_path, TASKFLOW_DOWNLOAD="0")
    resolver.resolve("kube-controller-manager")
    assert machine.made == [("build", "kube-controller-manager")]
    assert said == []


def test_minio_is_always_built_because_upstream_publishes_source_only(tmp_path: Path) -> None:
    machine = FakeMachine()
    resolver, _ = make_resolver(machine, tmp_path)
    resolver.resolve("minio")
    assert machine.made == [("build", "minio")]


def test_postgres_is_found_in_the_newest_folder_of_the_distribution(tmp_path: Path) -> None:
    machine = FakeMachine(
        installed={"/usr/lib/postgresql/15/bin/initdb": (15, 18), "/usr/lib/postgresql/17/bin/initdb": (17, 1)}
    )
    resolver, _ = make_resolver(machine, tmp_path)
    assert resolver.resolve("initdb") == Path("/usr/lib/postgresql/17/bin/initdb")


def test_root_gets_the_distributions_package(tmp_path: Path) -> None:
    machine = FakeMachine(has_apt=True)
    resolver, _ = make_resolver(machine, tmp_path)
    assert resolver.resolve("redis-server") == Path("/bin/redis-server")
    assert machine.made == [("install", "redis-server")]


def test_a_missing_program_names_what_to_install(tmp_path: Path) -> None:
    machine = FakeMachine(installed={"/bin/redis-server": (6, 2, 1)})
    resolver, _ = make_resolver(machine, tmp_path)
    with pytest.raises(ProgramMissingError) as caught:
        resolver.resolve("redis-server")
    message = str(caught.value)
    assert "expected 7.0 or newer on PATH, found /bin/redis-server (6.2.1)" in message
    assert "apt-get install redis-server" in message
    assert "TASKFLOW_PROGRAM_REDIS_SERVER" in message


def test_a_change_of_any_pin_changes_the_name_in_the_cache() -> None:
    names = set()
    for name in ("kube-apiserver", "kubectl", "etcd", "minio", "versitygw"):
        source = PROGRAMS[name].go
        assert source is not None
        assert (source.folder / "go.sum").is_file()
        names.add(source.fingerprint())
    assert len(names) == 5
