"""The first start of PostgreSQL: who runs it, initdb, and the role and database of TaskFlow."""

import os
import pwd
import shutil
import stat
import subprocess
from pathlib import Path

from taskflow_local.errors import LocalError
from taskflow_local.state import Memory, write_private

_USERS = ("postgres", "nobody")


def unprivileged_user() -> str | None:
    """Name the user that runs PostgreSQL when we are root (it refuses to run as root); None when we are not."""
    if os.geteuid() != 0:
        return None
    for name in _USERS:
        try:
            return pwd.getpwnam(name).pw_name
        except KeyError:
            continue
    raise LocalError(f"PostgreSQL refuses to run as root: expected a user {' or '.join(_USERS)}, found neither")


def check_passable(folder: Path, user: str | None) -> None:
    """Make sure that the unprivileged user can reach the folder. Raises LocalError that names the closed one."""
    if user is None:
        return
    for each in reversed((folder, *folder.parents)):
        info = each.stat()
        if not info.st_mode & stat.S_IXOTH and info.st_uid != pwd.getpwnam(user).pw_uid:
            raise LocalError(
                f"PostgreSQL runs as user {user!r}, who cannot pass {each} (mode {stat.S_IMODE(info.st_mode):04o}): "
                "choose a state folder elsewhere (--state), or chmod o+x that folder"
            )


def initialise(data: Path, programs: dict[str, Path], memory: Memory, user: str | None, log: Path) -> None:
    """Create the data folder with TaskFlow's role and database, once; a half made one is made anew."""
    if data.exists():
        return
    check_passable(data.parent, user)
    part = data.with_name("postgres.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(mode=0o700)
    password = part.with_name("postgres.password")
    write_private(password, memory.postgres_admin_password)
    if user is not None:
        for path in (part, password):
            shutil.chown(path, user, pwd.getpwnam(user).pw_gid)
    try:
        _run(
            [str(programs["initdb"]), "-D", str(part), "-U", "postgres", "-E", "UTF8", "--locale=C", "--no-sync",
             "-A", "scram-sha-256", "--pwfile", str(password)],
            "", user, log,
        )  # fmt: skip
    finally:
        password.unlink()
    # The single-user mode takes one command a line, from standard input: the password is in no argument.
    commands = (
        f"CREATE ROLE taskflow LOGIN PASSWORD '{memory.postgres_password}'\nCREATE DATABASE taskflow OWNER taskflow\n"
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
        argv, input=text.encode(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd="/", check=False, user=user, group=group,
        extra_groups=None if user is None else [], env={"PATH": os.defpath, "LANG": "C"},
    )  # fmt: skip
    output = answer.stdout.decode(errors="replace")
    with log.open("a") as file:
        file.write(output)
    # In single-user mode a failing command is only printed.
    if answer.returncode != 0 or "ERROR:" in output:
        raise LocalError(
            f"{Path(argv[0]).name} failed while PostgreSQL was set up ({answer.returncode}):\n{output[-2000:]}"
        )
