"""`taskflow resume`."""

from __future__ import annotations

import click

from taskflow_cli.cluster.client import TASKS
from taskflow_cli.options import Command, Target
from taskflow_cli.selection import Selection, change_each, open_task, selected


@click.command(
    cls=Command,
    examples=[
        ("resume hello", "it may run again"),
        ("resume -l team=billing --yes", "all that have a label and have not ended"),
    ],
)
@selected
def command(names: tuple[str, ...], labels: str, yes: bool, target: Target) -> None:
    """Let suspended Tasks run."""
    kube = target.kube()

    def resume(name: str) -> None:
        open_task(kube, name, "resume")
        kube.patch(TASKS, name, {"spec": {"suspend": False}})

    change_each(kube, Selection(names, labels, yes), "resume", "resumed", resume, open_only=True)
