"""`taskflow suspend`."""

from __future__ import annotations

import click

from taskflow_cli.cluster.client import TASKS
from taskflow_cli.options import Command, Target
from taskflow_cli.selection import Selection, change_each, open_task, selected


@click.command(
    cls=Command,
    examples=[
        ("suspend hello", "a Task leaves its queue"),
        ("suspend -l team=billing --yes", "all that have a label and have not ended"),
    ],
)
@selected
def command(names: tuple[str, ...], labels: str, yes: bool, target: Target) -> None:
    """Take Tasks out of their queue until they are resumed. An attempt that runs goes on."""
    kube = target.kube()

    def suspend(name: str) -> None:
        open_task(kube, name, "suspend")
        kube.patch(TASKS, name, {"spec": {"suspend": True}})

    change_each(kube, Selection(names, labels, yes), "suspend", "suspended", suspend, open_only=True)
