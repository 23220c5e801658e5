"""`taskflow wait`."""

from __future__ import annotations

import click

from taskflow_cli.cluster.client import TASKS
from taskflow_cli.following import follow
from taskflow_cli.options import Command, Target, cluster_options, complete_tasks, output_option, timeout_option
from taskflow_cli.output.formats import Format


@click.command(
    cls=Command,
    examples=[
        ("wait hello", "until it ended; the exit code is the outcome"),
        ("wait hello --timeout 5m -o jsonpath='{.status.result}'", "print its result, or give up"),
    ],
)
@click.argument("names", metavar="NAME...", nargs=-1, required=True, shell_complete=complete_tasks)
@click.option("--watch", is_flag=True, help="Print each change on stderr.")
@timeout_option
@output_option
@cluster_options
def command(names: tuple[str, ...], watch: bool, timeout: float | None, form: Format, target: Target) -> None:
    """Wait for the end of Tasks. The exit code is 0 if all succeeded, 10 if one failed, 11 if one was cancelled.

    Ctrl-C ends the waiting only; the Tasks go on.
    """
    follow(target, target.kube(), [TASKS.bare(name) for name in names], watch=watch, timeout=timeout, form=form)
