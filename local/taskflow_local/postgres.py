"""The first start of PostgreSQL: its user, initdb, TaskFlow's role and database, and the migration."""

import os
import pwd
import shutil
import stat
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from taskflow_local.errors import ComponentFailedError, LocalError
from taskflow_local.state import StackState, write_private

_USERS = ("postgres", "nobody")
_MIGRATION_SECONDS = 120
_TAIL_LINES = 15


def unprivileged_user() -> str | None:
    """The user that runs PostgreSQL, which refuses to run as root. None if we are not root."""
    if os.geteuid() != 0:
        return None
    for name in _USERS:
        try:
            return pwd.getpwnam(name).pw_name
        except KeyError:
            continue
    raise LocalError(f"PostgreSQL refuses to run as root: expected a user {' or '.join(_USERS)}, found neither")


def check_passable(folder: Path, user: str | None) -> None:
    """Check that the unprivileged user can reach the folder. Raises LocalError that names the closed folder."""
    if user is None:
        return
    for each in reversed((folder, *folder.parents)):
        info = each.stat()
        if not info.st_mode & stat.S_IXOTH and info.st_uid != pwd.getpwnam(user).pw_uid:
            raise LocalError(
                f"PostgreSQL runs as user {user!r}, which cannot enter {each} (mode {stat.S_IMODE(info.st_mode):04o}): "
                "choose a state folder elsewhere (--state), or chmod o+x that folder"
            )


def initialise(data: Path, programs: dict[str, Path], state: StackState, user: str | None, log: Path) -> None:
    """Create the data folder with TaskFlow's role and database, once. An incomplete one is created again."""
    if data.exists():
        return
    check_passable(data.parent, user)
    part = data.with_name("postgres.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(mode=0o700)
    password = part.with_name("postgres.password")
    write_private(password, state.postgres_admin_password)
    if user is not None:
        for path in (part, password):
            shutil.chown(path, user, pwd.getpwnam(user).pw_gid)
    try:
        _run(
            [
                str(programs["initdb"]),
                "-D",
                str(part),
                "-U",
                "postgres",
                "-E",
                "UTF8",
                "--locale=C",
                "--no-sync",
                "-A",
                "scram-sha-256",
                "--pwfile",
                str(password),
            ],
            "",
            user,
            log,
        )
    finally:
        password.unlink()
    # Single-user mode reads one command per line from standard input, so that no argument has the password.
    commands = (
        f"CREATE ROLE taskflow LOGIN PASSWORD '{state.postgres_password}'\nCREATE DATABASE taskflow OWNER taskflow\n"
    )
    _run(
        [str(programs["postgres"]), "--single", "-D", str(part), "-c", "log_statement=none", "postgres"],
        commands,
        user,
        log,
    )
    part.replace(data)


def _run(argv: list[str], text: str, user: str | None, log: Path) -> None:
    group = None if user is None else pwd.getpwnam(user).pw_gid
    answer = subprocess.run(
        argv,
        input=text.encode(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd="/",
        check=False,
        user=user,
        group=group,
        extra_groups=None if user is None else [],
        env={"PATH": os.defpath, "LANG": "C"},
    )
    output = answer.stdout.decode(errors="replace")
    with log.open("a") as file:
        file.write(output)
    # In single-user mode a failing command only prints its error.
    if answer.returncode != 0 or "ERROR:" in output:
        raise LocalError(
            f"{Path(argv[0]).name} failed while PostgreSQL was set up ({answer.returncode}):\n{output[-2000:]}"
        )


def migrate(env: Mapping[str, str], cwd: Path, log: Path) -> None:
    """Migrate the history database to the newest schema. Raises ComponentFailedError with the output."""
    with log.open("ab") as output:
        answer = subprocess.run(
            [sys.executable, "-m", "taskflow_core.store.migrate"],
            env=dict(env),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            timeout=_MIGRATION_SECONDS,
            check=False,
        )
    if answer.returncode != 0:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-_TAIL_LINES:])
        raise ComponentFailedError(f"the migration ended with {answer.returncode}; its log {log} ends with:\n{tail}")
