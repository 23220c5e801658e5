"""`taskflow cancel`."""

from __future__ import annotations

import click

from taskflow_cli.cluster.client import TASKS
from taskflow_cli.options import Command, Target
from taskflow_cli.selection import Selection, change_each, open_task, selected


@click.command(
    cls=Command,
    examples=[
        ("cancel hello", "stop one Task; a running handler is asked to stop, and killed ten seconds later"),
        ("cancel -l team=billing --yes", "all that have a label and have not ended"),
    ],
)
@selected
def command(names: tuple[str, ...], labels: str, yes: bool, target: Target) -> None:
    """End Tasks as Cancelled. This cannot be undone; `taskflow retry` runs one again."""
    kube = target.kube()

    def cancel(name: str) -> None:
        open_task(kube, name, "cancel")
        kube.patch(TASKS, name, {"spec": {"cancel": True}})

    change_each(kube, Selection(names, labels, yes), "cancel", "is being cancelled", cancel, open_only=True)
