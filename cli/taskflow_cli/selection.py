"""Changes of Tasks that are named or selected by labels: an error of one does not stop the rest."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from taskflow_cli.cluster.client import TASKS, Kube, Object
from taskflow_cli.errors import CliError, Exit, lines_of
from taskflow_cli.options import cluster_options, complete_tasks, say
from taskflow_cli.tasks import columns

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Selection:
    """Which Tasks: names, or labels."""

    names: tuple[str, ...]
    labels: str
    yes: bool


def selected(command: F) -> F:
    """Adds names, `-l` and `--yes`, which the command gets as its arguments of Selection, and where the cluster is."""
    options = (
        click.argument("names", metavar="[NAME]...", nargs=-1, shell_complete=complete_tasks),
        click.option(
            "-l", "--selector", "labels", metavar="LABELS", default="", help="All with these labels, instead of names."
        ),
        click.option("-y", "--yes", is_flag=True, help="Do not ask before changing all that have the labels."),
        cluster_options,
    )
    for option in reversed(options):
        command = option(command)
    return command


def change_each(
    kube: Kube, selection: Selection, verb: str, done: str, change: Callable[[str], str | None], *, open_only: bool
) -> None:
    """Change each selected Task, and say so.

    Args:
        kube: Where they are.
        selection: Which ones.
        verb: What is done, for the question, e.g. `cancel`.
        done: What was done, e.g. `cancelled`.
        change: Changes one by name; returns what to say instead of `done`, or None.
        open_only: Labels select only Tasks that have not ended.

    Raises:
        CliError: none is named; one could not be changed: the others were.
    """
    names = [TASKS.bare(name) for name in selection.names]
    if bool(names) == bool(selection.labels):
        raise CliError(f"say which Tasks to {verb}: names, or labels with -l", code=Exit.USAGE)
    if selection.labels:
        found = kube.list(TASKS, labels=selection.labels)
        names = [task["metadata"]["name"] for task in found if not (open_only and columns.ended(task))]
        if not names:
            say(f"no {'open ' if open_only else ''}Tasks with {selection.labels} in namespace {kube.namespace}")
        elif not selection.yes:
            _confirm(names, verb)
    failed: list[CliError] = []
    for name in names:
        try:
            click.echo(f"task/{name} {change(name) or done}")
        except CliError as error:
            failed.append(error)
    _raise_all(failed)


def _confirm(names: Sequence[str], verb: str) -> None:
    if not sys.stdin.isatty():
        raise CliError(f"not without --yes: this would {verb} {len(names)} Tasks", code=Exit.USAGE)
    shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")  # noqa: PLR2004
    click.confirm(f"{verb} {len(names)} Tasks ({shown})?", abort=True, err=True)


def _raise_all(failed: Sequence[CliError]) -> None:
    for error in failed[:-1]:
        for line in lines_of(error):
            say(line)
    if failed:
        raise failed[-1]


def open_task(kube: Kube, name: str, verb: str) -> Object:
    """A Task that has not ended.

    Raises:
        CliError: it has, or there is none.
    """
    task = kube.get(TASKS, name)
    if columns.ended(task):
        raise CliError(
            f"cannot {verb} Task {name!r}",
            f"it has ended already ({columns.phase(task)})",
            code=Exit.CONFLICT,
        )
    return task
