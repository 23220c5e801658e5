"""The command `taskflow-local`."""

import argparse
import os
import shlex
import subprocess
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from taskflow_local import invocation
from taskflow_local.components import COMPONENTS, default_components
from taskflow_local.demo import run_demo
from taskflow_local.errors import LocalError, ProgramMissingError
from taskflow_local.handlers import ERROR
from taskflow_local.stack import Stack
from taskflow_local.state import default_state

EXIT_OK, EXIT_FAILED, EXIT_USAGE, EXIT_PROGRAM, EXIT_NOT_READY, EXIT_INTERRUPTED = 0, 1, 2, 3, 4, 130
_ABOUT = """\
Runs TaskFlow on this machine, without Docker or a cluster: etcd, kube-apiserver, kube-controller-manager, Redis,
PostgreSQL, MinIO, a node that runs Pods as local processes, the operator and the REST API. Everything listens on
127.0.0.1, everything is kept in one folder.

For development and tests only: one etcd member without fsync, Pods without isolation, secrets in files."""
_EPILOG = """\
examples:
  taskflow-local up                    start everything and wait until it is ready
  taskflow-local up --handlers my.py   the same; workers run the handlers of my.py, also when it changes
  eval "$(taskflow-local env)"         let kubectl and clients of this shell use it
  kubectl get tft                      list Tasks
  taskflow-local logs operator -f      follow a component
  taskflow-local down                  stop everything, keep the data

environment:
  TASKFLOW_LOCAL_STATE                 the state folder, as --state
  TASKFLOW_PROGRAM_<NAME>              path of a program, e.g. TASKFLOW_PROGRAM_KUBE_APISERVER
  TASKFLOW_DOWNLOAD=0                  never download programs, build them from source

exit codes:
  0  done                              3  a program is missing; the message says what to install
  1  failed; the message says why      4  status: not every component is running and ready
  2  wrong usage                       130  interrupted"""


@dataclass(frozen=True)
class Argument:
    """One argument of a subcommand, as argparse takes it."""

    names: tuple[str, ...]
    options: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Command:
    """One subcommand. Add one by adding it to COMMANDS."""

    name: str
    section: str
    summary: str
    run: Callable[[Path, argparse.Namespace], int]
    arguments: Sequence[Argument] = ()


def _say(line: str) -> None:
    print(line, flush=True)


def _existing(state: Path) -> Stack:
    stack = Stack(state)
    if not stack.exists():
        raise LocalError(
            f"{stack.folder.root}: no stack there; start one with: {invocation.command('up', state=state)}"
        )
    return stack


def _up(state: Path, arguments: argparse.Namespace) -> int:
    stack = Stack(state, arguments.only or default_components(os.environ))
    stack.up(_say, arguments.handlers)
    _say(f"TaskFlow is up; state in {stack.folder.root} (development and tests only)")
    _say(f"use it in this shell:  {invocation.environment(stack.folder.root)}")
    return EXIT_OK


def _down(state: Path, arguments: argparse.Namespace) -> int:
    stack = _existing(state)
    if arguments.delete:
        stack.delete(_say)
        _say(f"stopped; removed {stack.folder.root}")
        return EXIT_OK
    stack.down(_say)
    _say(f"stopped; data is kept in {stack.folder.root}")
    return EXIT_OK


def _status(state: Path, _: argparse.Namespace) -> int:
    stack = _existing(state)
    rows = stack.status()
    states = {(True, True): "running", (True, False): "not ready", (False, False): "stopped"}
    print(f"{'COMPONENT':<25}{'STATE':<11}{'PID':<9}ADDRESS")
    for row in rows:
        print(f"{row.name:<25}{states[row.running, row.ready]:<11}{row.pid or '-':<9}{row.address}")
    if (kept := stack.folder.handlers / ERROR).exists():
        print(f"\nworkers have older handlers than your files: {kept.read_text().strip()}")
    return EXIT_OK if all(row.ready for row in rows) else EXIT_NOT_READY


def _logs(state: Path, arguments: argparse.Namespace) -> int:
    path = _log_of(_existing(state), arguments.component)
    follow = ("-F",) if arguments.follow else ()
    return subprocess.run(["tail", "-n", "+1", *follow, str(path)], check=False).returncode


def _log_of(stack: Stack, name: str) -> Path:
    if name.startswith("pod/"):
        # Newest first: names are reused, as in a StatefulSet.
        logs = sorted(stack.folder.pods.glob("*/*.log"), key=lambda path: path.stat().st_mtime, reverse=True)
        found = [path for path in logs if path.parent.name.split("_")[1] == name.removeprefix("pod/")]
        if not found:
            known = ", ".join(sorted({path.parent.name.split("_")[1] for path in logs})) or "none"
            raise LocalError(f"{name}: expected a Pod that ran here, found {known}")
        return found[0]
    if name not in (*COMPONENTS, "migrate"):
        raise LocalError(f"{name}: expected pod/NAME, migrate or one of {', '.join(COMPONENTS)}")
    path = stack.log(name)
    if not path.exists():
        raise LocalError(f"{path}: no such log; {name} was never started in this state folder")
    return path


def export_lines(env: Mapping[str, str]) -> list[str]:
    """An environment as lines for a POSIX shell."""
    return [f"export {name}={shlex.quote(value)}" for name, value in env.items()]


def _env(state: Path, _: argparse.Namespace) -> int:
    stack = _existing(state)
    print("\n".join(export_lines(stack.env())))
    return EXIT_OK


def _namespace(state: Path, arguments: argparse.Namespace) -> int:
    _existing(state).add_namespace(arguments.name)
    _say(f"{arguments.name}: WorkerPools may run there; their logins are in its Secret taskflow-worker")
    return EXIT_OK


def _demo(state: Path, arguments: argparse.Namespace) -> int:
    # Never in the stack that is in use, unless --state names it.
    default = default_state(os.environ, root=os.geteuid() == 0)
    run_demo(state.with_name("demo") if state == default else state, keep=arguments.keep)
    return EXIT_OK


_COMPONENT = Argument(
    ("component",), {"metavar": "COMPONENT", "help": f"pod/NAME, migrate or one of: {', '.join(COMPONENTS)}"}
)
_HANDLERS = (
    "Python files, packages or folders with your handlers: every worker has them, and is replaced when they change; "
    "kept until the next --handlers; without PATH, none"
)
COMMANDS = [
    Command(
        "up",
        "run",
        "start what does not run and wait until everything is ready",
        _up,
        [
            Argument(
                ("--only",), {"nargs": "+", "metavar": "COMPONENT", "help": f"only these of: {', '.join(COMPONENTS)}"}
            ),
            Argument(("--handlers",), {"nargs": "*", "type": Path, "metavar": "PATH", "help": _HANDLERS}),
        ],
    ),
    Command(
        "down",
        "run",
        "stop everything; data stays",
        _down,
        [Argument(("--delete",), {"action": "store_true", "help": "also remove the state folder"})],
    ),
    Command("status", "look", "show each component; exit code 0 only if all are ready", _status),
    Command(
        "logs",
        "look",
        "print the log of a component or of a Pod",
        _logs,
        [_COMPONENT, Argument(("-f", "--follow"), {"action": "store_true", "help": "keep printing what is added"})],
    ),
    Command(
        "demo",
        "run",
        "start a separate stack, run real work through it, show what happened, remove it",
        _demo,
        [Argument(("--keep",), {"action": "store_true", "help": "leave the stack running"})],
    ),
    Command(
        "namespace",
        "run",
        "add NAME: create a namespace for Tasks, with logins for its workers",
        _namespace,
        [
            Argument(("action",), {"choices": ("add",), "help": "what to do"}),
            Argument(("name",), {"metavar": "NAME", "help": "name of the namespace"}),
        ],
    ),
    Command("env", "look", "print `export` lines for a shell: KUBECONFIG, PATH, TASKFLOW_*", _env),
]


def _sections() -> str:
    lines = []
    for section in dict.fromkeys(command.section for command in COMMANDS):
        lines.append(f"commands to {section}:")
        lines += [f"  {each.name:<37}{each.summary}" for each in COMMANDS if each.section == section]
        lines.append("")
    return "\n".join(lines)


def parser(default: Path) -> argparse.ArgumentParser:
    """Build the parser from COMMANDS. `default` is the state folder without --state."""
    state = argparse.ArgumentParser(add_help=False)
    state.add_argument(
        "--state", type=Path, metavar="DIR", help=f"the state folder (default: {default})", default=argparse.SUPPRESS
    )
    raw = argparse.RawDescriptionHelpFormatter
    top = argparse.ArgumentParser(
        prog="taskflow-local",
        usage="taskflow-local [--state DIR] COMMAND ...",
        parents=[state],
        formatter_class=raw,
        description=_ABOUT,
        epilog=f"{_sections()}\n{_EPILOG}",
    )
    subparsers = top.add_subparsers(dest="command", metavar="COMMAND", required=True, help=argparse.SUPPRESS)
    for command in COMMANDS:
        about = textwrap.fill(command.summary, 100)
        sub = subparsers.add_parser(
            command.name, prog=f"taskflow-local {command.name}", parents=[state], description=about, formatter_class=raw
        )
        for argument in command.arguments:
            sub.add_argument(*argument.names, **argument.options)  # type: ignore[arg-type]
        sub.set_defaults(run=command.run)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand; returns the exit code."""
    default = default_state(os.environ, root=os.geteuid() == 0)
    arguments = parser(default).parse_args(argv)
    # Absent, not None: --state may stand before or after the subcommand.
    state = getattr(arguments, "state", default)
    try:
        return int(arguments.run(state, arguments))
    except LocalError as error:
        print(f"taskflow-local: {error}", file=sys.stderr)
        return EXIT_PROGRAM if isinstance(error, ProgramMissingError) else EXIT_FAILED
    except BrokenPipeError:
        return EXIT_FAILED
    except KeyboardInterrupt:
        stop = invocation.command("down", state=state)
        print(f"taskflow-local: interrupted; this stops what was started: {stop}", file=sys.stderr)
        return EXIT_INTERRUPTED
