"""`taskflow get`."""

from __future__ import annotations

import click

from taskflow_cli.cluster.client import TASKS
from taskflow_cli.options import Command, Target, cluster_options, complete_tasks, output_option, print_objects
from taskflow_cli.output.formats import Format
from taskflow_cli.tasks.columns import TASK_COLUMNS


@click.command(
    cls=Command,
    examples=[
        ("get hello", "one line about a Task"),
        ("get hello -o yaml", "the whole resource"),
        ("get hello -o jsonpath='{.status.result}'", "what it returned"),
    ],
)
@click.argument("names", metavar="NAME...", nargs=-1, required=True, shell_complete=complete_tasks)
@output_option
@cluster_options
def command(names: tuple[str, ...], form: Format, target: Target) -> None:
    """Show Tasks by name, each in a line, or as resources."""
    kube = target.kube()
    found = [kube.get(TASKS, TASKS.bare(name)) for name in names]
    print_objects(found, TASKS, TASK_COLUMNS, form, target.surroundings, as_list=len(found) > 1)
