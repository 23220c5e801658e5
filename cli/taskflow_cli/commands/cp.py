"""`taskflow cp`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from taskflow_cli.api.download import download
from taskflow_cli.cluster.client import TASKS
from taskflow_cli.errors import CliError, Exit
from taskflow_cli.options import Command, Target, cluster_options, say, server_option

_LEAST_BYTES = 10_000_000
"""Smaller files need no progress."""


@click.command(
    cls=Command,
    examples=[
        ("cp hello:table.csv .", "an output of a Task, into this folder"),
        ("cp hello:table.csv report.csv", "under another name"),
    ],
)
@click.argument("source", metavar="TASK:OUTPUT")
@click.argument("destination", metavar="PATH", type=click.Path(path_type=Path))
@server_option
@cluster_options
def command(source: str, destination: Path, server: str, target: Target) -> None:
    """Download an output of a Task to a file or into a folder. A file that is there is replaced when the download is
    whole. By the REST API, whose link leads to the object store.
    """
    name, colon, output = source.rpartition(":")
    if not colon or not name or not output:
        raise CliError(f"expected TASK:OUTPUT, found {source!r}", code=Exit.USAGE)
    rest = target.rest(server)
    task = TASKS.bare(name)
    found = rest.read(rest.path("tasks", task, "artifacts", output), f"cannot get output {output!r} of Task {task!r}")
    # The name of an output is a file name; what the API says is checked like any input.
    path = destination / Path(output).name if destination.is_dir() else destination
    if not path.parent.is_dir():
        raise CliError(f"{path.parent} is no folder", code=Exit.NOT_FOUND)
    size = download(str(found["url"]), path, str(found["sha256"]), _progress)
    say(f"{path}: {size} bytes")


def _progress(done: int, total: int) -> None:
    if total >= _LEAST_BYTES and sys.stderr.isatty():
        click.echo(f"\r{100 * done // total}% of {total / 1e6:.0f} MB", nl=done == total, err=True)
