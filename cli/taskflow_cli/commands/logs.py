"""`taskflow logs`."""

from __future__ import annotations

import sys

import click

from taskflow_cli.api.logs import followed, whole
from taskflow_cli.cluster.client import TASKS
from taskflow_cli.options import Command, Target, cluster_options, complete_tasks, say, server_option
from taskflow_cli.output.text import safe


@click.command(
    cls=Command,
    examples=[
        ("logs hello", "what its last attempt printed and logged"),
        ("logs hello -f --tail 20", "the last lines, then what is added, over retries until the Task has ended"),
        ("logs hello --attempt 1", "of the first attempt"),
    ],
)
@click.argument("name", shell_complete=complete_tasks)
@click.option("-f", "--follow", is_flag=True, help="Go on until the Task has ended, over retries.")
@click.option("--attempt", type=click.IntRange(1), metavar="N", help="Of this attempt (default: the last).")
@click.option("--tail", type=click.IntRange(0, 10_000), metavar="N", help="Only the last N lines.")
@server_option
@cluster_options
def command(name: str, follow: bool, attempt: int | None, tail: int | None, server: str, target: Target) -> None:
    """Print what an attempt printed and logged, in lines of the form TIME STREAM TEXT. By the REST API."""
    rest = target.rest(server)
    name = TASKS.bare(name)
    for part in followed(rest, name, attempt, tail, say) if follow else [whole(rest, name, attempt, tail)]:
        _print(part)


def _print(part: bytes) -> None:
    if sys.stdout.isatty():
        # Of a handler, which may have printed anything.
        click.echo(safe(part.decode(errors="replace"), lines=True), nl=False)
    else:
        click.echo(part, nl=False)
    sys.stdout.flush()
