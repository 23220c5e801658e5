"""The stack of local mode, which the program `taskflow-local` runs."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from taskflow_cli.errors import CliError, Exit

PROGRAM = "taskflow-local"
_INSTALL = "pip install 'taskflow-operator[cli,local]'"
_UP = {"running", "not ready"}


@dataclass(frozen=True)
class LocalMode:
    """The stack in a state folder.

    Args:
        environ: The environment of its programs.
        state: The folder; None is that of `taskflow-local` itself.
    """

    environ: Mapping[str, str]
    state: Path | None = None

    def _command(self, *arguments: str) -> list[str]:
        # Beside this program first: that of the same environment.
        path = f"{Path(sys.executable).parent}:{self.environ.get('PATH', '')}"
        found = shutil.which(PROGRAM, path=path)
        if found is None:
            raise CliError(f"{PROGRAM} is not installed", hint=_INSTALL, code=Exit.UNREACHABLE)
        return [found, *arguments, *([] if self.state is None else ["--state", str(self.state)])]

    def _ask(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(  # noqa: S603 - our own program
            self._command(*arguments), env=dict(self.environ), capture_output=True, text=True, check=False
        )

    def running(self) -> bool:
        """Whether a part of it runs."""
        lines = self._ask("status").stdout.splitlines()[1:]
        return any(state in line for line in lines for state in _UP)

    def up(self, handlers: Sequence[Path]) -> None:
        """Start what does not run, with these handlers; what it says goes to stderr.

        Raises:
            CliError: it failed, and has said why.
        """
        command = self._command("up", "--handlers", *map(str, handlers))
        done = subprocess.run(command, env=dict(self.environ), stdout=sys.stderr, check=False)  # noqa: S603
        if done.returncode:
            raise CliError(f"{PROGRAM} up failed", f"exit code {done.returncode}, see above")

    def down(self) -> None:
        """Stop it. Its data stays."""
        # In a session of its own: a second Ctrl-C does not leave half of it running.
        subprocess.run(  # noqa: S603
            self._command("down"), env=dict(self.environ), stdout=sys.stderr, start_new_session=True, check=False
        )

    def environment(self) -> dict[str, str]:
        """The environment with what reaches it: KUBECONFIG, TASKFLOW_API_URL and so on.

        Raises:
            CliError: it does not run.
        """
        done = self._ask("env")
        if done.returncode:
            raise CliError("local mode does not run", hint="start it with: taskflow dev FILE", code=Exit.UNREACHABLE)
        lines = (line.removeprefix("export ") for line in done.stdout.splitlines())
        pairs = (line.partition("=") for line in lines)
        return {**self.environ, **{name: "".join(shlex.split(value)) for name, _, value in pairs if name}}
