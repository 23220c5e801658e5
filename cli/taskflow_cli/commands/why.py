"""`taskflow why`."""

from __future__ import annotations

import click

from taskflow_cli.cluster.client import POOLS, TASKS
from taskflow_cli.options import Command, Target, cluster_options, complete_tasks
from taskflow_cli.tasks import columns
from taskflow_cli.tasks.explanation import explain


@click.command(
    cls=Command, examples=[("why hello", "why a Task waits, how its last attempt ended, who serves its queue")]
)
@click.argument("name", shell_complete=complete_tasks)
@cluster_options
def command(name: str, target: Target) -> None:
    """Explain why a Task waits, or how it ended: what the operator says, beside the Tasks and pools it waits for."""
    kube = target.kube()
    task = kube.get(TASKS, TASKS.bare(name))
    waits = not columns.ended(task) and columns.phase(task) != "Running"
    needed = [each["name"] for each in task["spec"].get("dependsOn") or ()] if waits else []
    pools = kube.list(POOLS) if waits else []
    others = {other: kube.find(TASKS, other) for other in needed}
    for line in explain(task, pools, others, target.surroundings.now()):
        click.echo(line)
