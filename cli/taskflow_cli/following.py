"""Waiting for Tasks as a command does it: changes on stderr, the ended Tasks on stdout, the outcome as exit code."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from taskflow_cli.cluster.client import TASKS, Kube, Object
from taskflow_cli.options import Target, print_objects, say
from taskflow_cli.output.formats import Format
from taskflow_cli.output.text import safe
from taskflow_cli.tasks import columns
from taskflow_cli.tasks.waiting import line, outcome, wait_for

F = TypeVar("F", bound=Callable[..., Any])


def waiting_options(command: F) -> F:
    """Adds `--wait` and `--watch`."""
    options = (
        click.option("--wait", is_flag=True, help="Wait for the end; the exit code is the outcome (0, 10 or 11)."),
        click.option("--watch", is_flag=True, help="As --wait, and print each change on stderr."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def follow(
    target: Target,
    kube: Kube,
    names: Sequence[str],
    *,
    watch: bool,
    timeout: float | None,
    form: Format,
    at_end: Callable[[], None] = lambda: None,
) -> None:
    """Wait for the end of Tasks and print them.

    Args:
        target: Where they are.
        kube: Likewise.
        names: Their names.
        watch: Print each change on stderr.
        timeout: Seconds for all together, or None.
        form: How the ended Tasks are printed; for people, in a line with the result.
        at_end: Called after the end, before they are printed.

    Raises:
        CliError: one did not succeed, or could not be waited for.
    """
    said: set[str] = set()

    def show(task: Object) -> None:
        text = line(task)
        if text not in said and not columns.ended(task):
            said.add(text)
            say(text)

    ended = wait_for(kube, names, timeout=timeout, say=say, show=show if watch else None)
    at_end()
    if form.name == "table":
        for task in ended:
            click.echo(safe(_ended(task)))
    else:
        print_objects(ended, TASKS, columns.TASK_COLUMNS, form, target.surroundings, as_list=len(ended) > 1)
    if (error := outcome(ended)) is not None:
        raise error


def _ended(task: Object) -> str:
    duration = columns.status_of(task).get("duration")
    result = columns.result(task)
    after = f" in {duration}" if duration else ""
    return f"task/{task['metadata']['name']} {columns.phase(task).lower()}{after}" + (f": {result}" if result else "")
