"""`taskflow delete`."""

from __future__ import annotations

import click

from taskflow_cli.cluster.client import TASKS
from taskflow_cli.options import Command, Target
from taskflow_cli.selection import Selection, change_each, selected


@click.command(
    cls=Command,
    examples=[
        ("delete hello", "the resource goes; a Task that has not ended is cancelled"),
        ("delete -l team=billing --yes", "all that have a label"),
    ],
)
@selected
def command(names: tuple[str, ...], labels: str, yes: bool, target: Target) -> None:
    """Delete Tasks. One that has not ended is cancelled. The history keeps what it knows."""
    kube = target.kube()
    change_each(
        kube,
        Selection(names, labels, yes),
        "delete",
        "deleted",
        lambda name: kube.delete(TASKS, name),
        open_only=False,
    )
