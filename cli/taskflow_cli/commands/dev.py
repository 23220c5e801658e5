"""`taskflow dev`."""

from __future__ import annotations

import dataclasses
import signal
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import click

from taskflow_cli.api.client import Rest
from taskflow_cli.api.logs import whole
from taskflow_cli.cluster.client import POOLS, TASKS, Kube
from taskflow_cli.errors import CliError
from taskflow_cli.following import follow
from taskflow_cli.local_mode import LocalMode
from taskflow_cli.options import Command, Surroundings, Target, output_option, say, timeout_option
from taskflow_cli.output.formats import Format
from taskflow_cli.output.text import safe
from taskflow_cli.streaming import LogStream
from taskflow_cli.tasks import manifest

F = TypeVar("F", bound=Callable[..., Any])
_START = "start"
POOL = {
    "apiVersion": manifest.API_VERSION,
    "kind": "WorkerPool",
    "metadata": {"name": "dev"},
    "spec": {"queues": ["default"], "concurrency": 2, "replicas": 1},
}
"""Where no pool serves the queue `default`."""


class _FilesOrCommand(click.Group):
    """A group that takes files where others take the name of a command: `dev mine.py` is `dev start mine.py`."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        known = args[0] in self.commands or args[0] in ctx.help_option_names
        return super().resolve_command(ctx, args if known else [_START, *args])


@click.group("dev", cls=_FilesOrCommand)
def command() -> None:
    """Try your own handlers on this machine, with a reload at every save: `taskflow dev mine.py`."""


_state = click.option(
    "--state",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="State folder of local mode (default: that of taskflow-local).",
)


@command.command(
    _START,
    cls=Command,
    examples=[
        ("dev mine.py", "workers with the handlers of mine.py, new ones when it is saved; logs until Ctrl-C"),
        ("dev handlers/ --keep", "with all files of a folder; local mode goes on after Ctrl-C"),
    ],
)
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--keep", is_flag=True, help="Leave local mode running at the end.")
@_state
def start(paths: tuple[Path, ...], keep: bool, state: Path | None) -> None:
    """Start local mode with the handlers of files, packages or folders, and print what Tasks log.

    Workers get the handlers anew when a file is saved; attempts that run end first. A pool `dev` is made if no pool
    serves the queue `default`. At Ctrl-C, local mode is stopped if it was started here; its data stays.
    """
    surroundings = click.get_current_context().find_object(Surroundings) or Surroundings()
    local = LocalMode(surroundings.environ, state)
    ours = not keep and not local.running()
    for number in (signal.SIGTERM, signal.SIGHUP):
        # Also when the terminal is closed, nothing is left running.
        signal.signal(number, _interrupt)
    try:
        local.up(paths)
        target = _target(surroundings, local)
        kube = target.kube()
        _ensure_pool(kube)
        option = "" if state is None else f" --state {state}"
        say(f"ready; run one of them with: taskflow dev run HANDLER -p key=value{option}")
        LogStream(kube, target.rest, _print).run()
    except KeyboardInterrupt:
        # The way to end it.
        say("stopping local mode" if ours else "local mode goes on; stop it with: taskflow-local down")
    finally:
        if ours:
            local.down()


def _interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the interface of signals
    raise KeyboardInterrupt


def _print(line: str) -> None:
    click.echo(line)


def _target(surroundings: Surroundings, local: LocalMode) -> Target:
    environ = local.environment()
    # The credentials of the stack, and no others.
    return Target(dataclasses.replace(surroundings, environ=environ), kubeconfig=Path(environ["KUBECONFIG"]))


def _ensure_pool(kube: Kube) -> None:
    pools = kube.list(POOLS)
    if not any("default" in pool["spec"].get("queues", ()) for pool in pools):
        kube.create(POOLS, POOL)


@command.command(
    cls=Command,
    examples=[("dev run mine.add -p a=1 -p b=2", "in another terminal: run a handler once, print its log and result")],
)
@click.argument("handler")
@click.option("-p", "--param", "params", multiple=True, metavar="KEY=VALUE", help="Keyword argument; JSON, else text.")
@timeout_option
@output_option
@_state
def run(handler: str, params: tuple[str, ...], timeout: float | None, form: Format, state: Path | None) -> None:
    """Run a handler once in local mode, without retries; its log goes to stderr. The exit code is the outcome."""
    surroundings = click.get_current_context().find_object(Surroundings) or Surroundings()
    target = _target(surroundings, LocalMode(surroundings.environ, state))
    kube = target.kube()
    body = manifest.of_handler(handler, kwargs=manifest.parameters(params), retryPolicy={"maxAttempts": 1})
    name = kube.create(TASKS, body)["metadata"]["name"]
    follow(target, kube, [name], watch=False, timeout=timeout, form=form, at_end=lambda: _log(target.rest(), name))


def _log(rest: Rest, name: str) -> None:
    try:
        content = whole(rest, name, None, None).decode(errors="replace")
    except CliError:
        return  # It has printed nothing.
    click.echo(safe(content, lines=True), nl=False, err=True)
