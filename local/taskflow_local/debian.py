"""Installs Debian packages, as root. Their services are neither started now nor at the next boot."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from taskflow_local.errors import ProgramMissingError

_POLICY = Path("/usr/sbin/policy-rc.d")
_CLUSTER_CONF = Path("/etc/postgresql-common/createcluster.conf")


def can_install() -> bool:
    """Tell whether this user may install packages on this machine."""
    return os.geteuid() == 0 and shutil.which("apt-get") is not None


def install(package: str, log: Callable[[str], None]) -> None:
    """Install a package without starting its service. Raises ProgramMissingError with apt-get's message."""
    log(f"installing the package {package} (its service will not be started)")
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    own_policy = not _POLICY.exists()
    if own_policy:
        # 101 means "action forbidden by policy": maintainer scripts then start nothing (invoke-rc.d(8)).
        _POLICY.write_text("#!/bin/sh\nexit 101\n")
        _POLICY.chmod(0o755)
    if package == "postgresql" and not _CLUSTER_CONF.exists():
        _CLUSTER_CONF.parent.mkdir(parents=True, exist_ok=True)
        _CLUSTER_CONF.write_text("create_main_cluster = false\n")
    try:
        for command in (
            ["apt-get", "update", "-qq"],
            ["apt-get", "install", "-y", "-qq", "--no-install-recommends", package],
        ):
            answer = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
            if answer.returncode != 0:
                raise ProgramMissingError(f"{' '.join(command)} failed: {answer.stderr.strip()}")
        if Path("/run/systemd/system").exists():
            subprocess.run(["systemctl", "disable", "--quiet", package], check=False)
    finally:
        if own_policy:
            _POLICY.unlink(missing_ok=True)
