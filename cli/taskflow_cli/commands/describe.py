"""`taskflow describe`."""

from __future__ import annotations

import click

from taskflow_cli.cluster.client import EVENTS, TASKS, Kube, Object
from taskflow_cli.errors import CliError, Exit
from taskflow_cli.options import Command, Target, cluster_options, complete_tasks
from taskflow_cli.tasks.description import describe


@click.command(
    cls=Command, examples=[("describe hello", "arguments, attempts, errors, results, conditions and Events")]
)
@click.argument("names", metavar="NAME...", nargs=-1, required=True, shell_complete=complete_tasks)
@cluster_options
def command(names: tuple[str, ...], target: Target) -> None:
    """Show all that the resource says about Tasks, and their Events. Times are local."""
    kube = target.kube()
    for number, name in enumerate(names):
        task = kube.get(TASKS, TASKS.bare(name))
        here = target.surroundings.screen()
        page = describe(task, _events(kube, task), target.surroundings.now(), here)
        click.echo(("\n" if number else "") + page, nl=False, color=here.colour)


def _events(kube: Kube, task: Object) -> list[Object] | None:
    try:
        return kube.list(EVENTS, fields=f"regarding.uid={task['metadata']['uid']}")
    except CliError as error:
        if error.code is Exit.NOT_ALLOWED:
            return None
        raise
