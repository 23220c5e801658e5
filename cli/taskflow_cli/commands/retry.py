"""`taskflow retry`."""

from __future__ import annotations

import click

from taskflow_cli.cluster.client import TASKS
from taskflow_cli.errors import CliError, Exit
from taskflow_cli.following import follow, waiting_options
from taskflow_cli.options import (
    Command,
    Target,
    cluster_options,
    complete_tasks,
    output_option,
    print_objects,
    timeout_option,
)
from taskflow_cli.output.formats import Format
from taskflow_cli.tasks import columns, manifest


@click.command(
    cls=Command,
    examples=[
        ("retry hello --wait", "run it once more, as a new Task"),
        ("retry big-array --items failed", "of an array, only the items that failed"),
    ],
)
@click.argument("name", shell_complete=complete_tasks)
@click.option(
    "--name",
    "new_name",
    metavar="NAME",
    default="",
    help="Name of the new Task (default: the old one's with a suffix).",
)
@click.option(
    "--items",
    type=click.Choice(["all", "failed"]),
    default="all",
    show_default=True,
    help="Of an array, which items run.",
)
@waiting_options
@timeout_option
@output_option
@cluster_options
def command(
    name: str,
    new_name: str,
    items: str,
    wait: bool,
    watch: bool,
    timeout: float | None,
    form: Format,
    target: Target,
) -> None:
    """Create a new Task with the specification and labels of one that ended.

    The annotation taskflow.dev/retried-from of the new Task has the uid of the old one.
    """
    waits = wait or watch
    if timeout is not None and not waits:
        raise CliError("--timeout needs --wait or --watch", code=Exit.USAGE)
    kube = target.kube()
    old = kube.get(TASKS, TASKS.bare(name))
    name = old["metadata"]["name"]
    if not columns.ended(old):
        raise CliError(
            f"cannot retry Task {name!r}",
            f"it has not ended ({columns.phase(old)})",
            hint=f"wait for it, or stop it with: taskflow cancel {name}",
            code=Exit.CONFLICT,
        )
    body = manifest.retry_of(old, new_name)
    if items == "failed":
        if "array" not in old["spec"]:
            raise CliError(f"--items is for arrays, and Task {name!r} is none", code=Exit.USAGE)
        body["spec"]["array"] = manifest.failed_items_of(old)
    new = kube.create(TASKS, body)
    if form.name == "table":
        click.echo(f"task/{new['metadata']['name']} created", err=waits)
    elif not waits:
        print_objects([new], TASKS, columns.TASK_COLUMNS, form, target.surroundings, as_list=False)
    if waits:
        follow(target, kube, [new["metadata"]["name"]], watch=watch, timeout=timeout, form=form)
