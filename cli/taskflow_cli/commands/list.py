"""`taskflow list`."""

from __future__ import annotations

from itertools import islice
from typing import Any

import click

from taskflow_cli.api.client import Rest
from taskflow_cli.cluster.client import TASKS, Kube, Object
from taskflow_cli.errors import CliError, Exit
from taskflow_cli.options import (
    Command,
    Target,
    cluster_options,
    output_option,
    print_objects,
    say,
    server_option,
    sort_by,
)
from taskflow_cli.output import formats
from taskflow_cli.output.formats import Format
from taskflow_cli.tasks import columns

_HISTORY_LIMIT = 50
_PAGE = 500


@click.command(
    cls=Command,
    examples=[
        ("list", "the Tasks of the namespace"),
        ("list -A --phase Failed", "what failed, in all namespaces"),
        ("list -l team=billing --sort-by .status.startTime -o wide", "by label, in the order of their start"),
        ("list --history --phase Failed --limit 20", "from the history: also those that were deleted, newest first"),
        ("list --phase Running -o jsonpath='{.items[*].metadata.name}'", "only names, for a script"),
    ],
)
@click.option("-A", "--all-namespaces", is_flag=True, help="Of all namespaces.")
@click.option(
    "-l", "--selector", metavar="LABELS", default="", help="Only with these labels, e.g. team=billing,tier!=test."
)
@click.option(
    "--phase",
    "phases",
    multiple=True,
    type=click.Choice(columns.PHASES, case_sensitive=False),
    help="Only in this phase; may be repeated.",
)
@click.option("--handler", metavar="NAME", help="Only of this handler.")
@click.option("-q", "--queue", metavar="NAME", help="Only of this queue.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="At most so many.")
@click.option(
    "--sort-by", "path", metavar="JSONPATH", help="Order, e.g. .metadata.creationTimestamp (default: by name)."
)
@click.option("--history", is_flag=True, help="From the history, by the REST API: also what was deleted; newest first.")
@click.option("--no-headers", is_flag=True, help="Leave out the first line of a table.")
@output_option
@server_option
@cluster_options
def command(
    all_namespaces: bool,
    selector: str,
    phases: tuple[str, ...],
    handler: str | None,
    queue: str | None,
    limit: int | None,
    path: str | None,
    history: bool,
    no_headers: bool,
    server: str,
    form: Format,
    target: Target,
) -> None:
    """List the Tasks that exist as resources, or with --history those that the history knows.

    A Task that has ended is deleted after its time to live, and stays in the history. From there, JSON is that of the
    REST API, and without --limit there are at most 50.
    """
    if history:
        if all_namespaces or len(phases) > 1:
            raise CliError("--history is of one namespace, and of one phase or all", code=Exit.USAGE)
        rest = target.rest(server)
        wanted = {"labelSelector": selector, "phase": "".join(phases), "handler": handler, "queue": queue}
        asked_for = {name: value for name, value in wanted.items() if value}
        found = sort_by(_history(rest, limit or _HISTORY_LIMIT, asked_for), path)
        _print_history(found, rest.namespace, form, target, headers=not no_headers)
        return
    if server:
        raise CliError("--server needs --history: without it, list asks the Kubernetes API", code=Exit.USAGE)
    kube = target.kube()
    found = _live(kube, phases, {"spec.handler": handler, "spec.queue": queue}, selector, limit, path, all_namespaces)
    if not found and form.for_people:
        say("no Tasks" + (" found" if all_namespaces else f" in namespace {kube.namespace}"))
    shown = (columns.NAMESPACE, *columns.TASK_COLUMNS) if all_namespaces else columns.TASK_COLUMNS
    print_objects(found, TASKS, shown, form, target.surroundings, as_list=True, headers=not no_headers)


def _live(
    kube: Kube,
    phases: tuple[str, ...],
    equal: dict[str, str | None],
    selector: str,
    limit: int | None,
    path: str | None,
    all_namespaces: bool,
) -> list[Object]:
    # The server can say "equals", not "one of", and a Task without status is Pending.
    asked = phases[0] if len(phases) == 1 and phases[0] != "Pending" else ""
    fields = ",".join(f"{field}={value}" for field, value in {"status.phase": asked, **equal}.items() if value)
    server_limit = 0 if path or (phases and not asked) else limit or 0
    found = kube.list(TASKS, labels=selector, fields=fields, limit=server_limit, all_namespaces=all_namespaces)
    if phases:
        found = [task for task in found if columns.phase(task) in phases]
    return sort_by(found, path)[: limit or None]


def _history(rest: Rest, limit: int, query: dict[str, Any]) -> list[Object]:
    what = "cannot list the history"
    size = min(limit, _PAGE)
    pages = rest.pages("tasks", what=what, after="cursor", following="nextCursor", limit=size, **query)
    return list(islice(pages, limit))


def _print_history(views: list[Object], namespace: str, form: Format, target: Target, *, headers: bool) -> None:
    if form.name in {"json", "yaml", "jsonpath"}:
        click.echo(formats.document({"items": views}, form), nl=False)
        return
    if not views and form.for_people:
        say(f"the history has no such Tasks in namespace {namespace}")
    found = [columns.as_resource(view) for view in views]
    print_objects(found, TASKS, columns.TASK_COLUMNS, form, target.surroundings, as_list=True, headers=headers)
