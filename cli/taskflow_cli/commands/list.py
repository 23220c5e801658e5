"""`taskflow list`."""

from __future__ import annotations

import click

from taskflow_cli.cluster.client import TASKS
from taskflow_cli.options import Command, Target, cluster_options, output_option, print_objects, say, sort_by
from taskflow_cli.output.formats import Format
from taskflow_cli.tasks import columns


@click.command(
    cls=Command,
    examples=[
        ("list", "the Tasks of the namespace"),
        ("list -A --phase Failed", "what failed, in all namespaces"),
        ("list -l team=billing --sort-by .status.startTime -o wide", "by label, in the order of their start"),
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
@click.option("--no-headers", is_flag=True, help="Leave out the first line of a table.")
@output_option
@cluster_options
def command(
    all_namespaces: bool,
    selector: str,
    phases: tuple[str, ...],
    handler: str | None,
    queue: str | None,
    limit: int | None,
    path: str | None,
    no_headers: bool,
    form: Format,
    target: Target,
) -> None:
    """List the Tasks that exist as resources.

    Tasks that ended are deleted after their time to live; the history in the REST API keeps them.
    """
    kube = target.kube()
    # The server can say "equals", not "one of", and a Task without status is Pending.
    asked = phases[0] if len(phases) == 1 and phases[0] != "Pending" else ""
    wanted = {"status.phase": asked, "spec.handler": handler, "spec.queue": queue}
    fields = ",".join(f"{field}={value}" for field, value in wanted.items() if value)
    server_limit = 0 if path or (phases and not asked) else limit or 0
    found = kube.list(TASKS, labels=selector, fields=fields, limit=server_limit, all_namespaces=all_namespaces)
    if phases:
        found = [task for task in found if columns.phase(task) in phases]
    found = sort_by(found, path)[: limit or None]
    if not found and form.for_people:
        say("no Tasks" + (" found" if all_namespaces else f" in namespace {kube.namespace}"))
    shown = (columns.NAMESPACE, *columns.TASK_COLUMNS) if all_namespaces else columns.TASK_COLUMNS
    print_objects(found, TASKS, shown, form, target.surroundings, as_list=True, headers=not no_headers)
