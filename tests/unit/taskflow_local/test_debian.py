import subprocess
from pathlib import Path
from typing import Any

import pytest

from taskflow_local import debian
from taskflow_local.errors import ProgramMissingError


def use_fakes(monkeypatch: pytest.MonkeyPatch, folder: Path, status: int) -> list[tuple[str, bool]]:
    """Record commands instead of running them, and whether services may start at that moment."""
    ran: list[tuple[str, bool]] = []
    policy = folder / "policy-rc.d"
    monkeypatch.setattr(debian, "_POLICY", policy)
    monkeypatch.setattr(debian, "_CLUSTER_CONF", folder / "postgresql-common" / "createcluster.conf")

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        ran.append((" ".join(command), policy.exists() and "exit 101" in policy.read_text()))
        return subprocess.CompletedProcess(command, status, "", "no such package")

    monkeypatch.setattr(subprocess, "run", run)
    return ran


def test_a_package_starts_no_service_and_creates_no_cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ran = use_fakes(monkeypatch, tmp_path, 0)
    debian.install("postgresql", print)
    assert ("apt-get install -y -qq --no-install-recommends postgresql", True) in ran
    assert not (tmp_path / "policy-rc.d").exists()
    conf = tmp_path / "postgresql-common" / "createcluster.conf"
    assert conf.read_text() == "create_main_cluster = false\n"


def test_a_failed_install_shows_the_error_of_apt_and_removes_its_policy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    use_fakes(monkeypatch, tmp_path, 100)
    with pytest.raises(ProgramMissingError, match="no such package"):
        debian.install("redis-server", print)
    assert not (tmp_path / "policy-rc.d").exists()


def test_an_existing_policy_is_left_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    use_fakes(monkeypatch, tmp_path, 0)
    (tmp_path / "policy-rc.d").write_text("#!/bin/sh\nexit 0\n")
    debian.install("redis-server", print)
    assert (tmp_path / "policy-rc.d").read_text() == "#!/bin/sh\nexit 0\n"
