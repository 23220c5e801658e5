"""`taskflow submit`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from taskflow_cli.cluster.client import TASKS, Object
from taskflow_cli.errors import CliError, Exit
from taskflow_cli.files import read
from taskflow_cli.following import follow, waiting_options
from taskflow_cli.options import Command, Target, cluster_options, output_option, print_objects, timeout_option
from taskflow_cli.output.formats import Format
from taskflow_cli.tasks import columns, manifest


@click.command(
    cls=Command,
    examples=[
        ("submit taskflow.echo -p value=hello --wait", "run a handler and print what it returns"),
        (
            'submit reports.summarise -p year=2026 -p \'tags=["a", "b"]\' -q nightly',
            "values are JSON if they can be, else text",
        ),
        ("submit -f task.yaml --watch --timeout 10m", "create what a file says, and follow it"),
        ("submit -f task.yaml -p year=2027 --dry-run=client", "print the Task that would be created"),
        ("submit taskflow.echo -p value=1 -o name", "print only the name, for a script"),
    ],
)
@click.argument("handler", required=False)
@click.option(
    "-f",
    "--file",
    "files",
    multiple=True,
    metavar="FILE",
    type=click.Path(dir_okay=False, allow_dash=True),
    help="YAML or JSON with Tasks; - is stdin. May be repeated.",
)
@click.option(
    "-p",
    "--param",
    "params",
    multiple=True,
    metavar="KEY=VALUE",
    help="Keyword argument; JSON if it can be read as JSON, else text.",
)
@click.option("--arg", "args", multiple=True, metavar="VALUE", help="Positional argument, likewise.")
@click.option("--name", metavar="NAME", default="", help="Name of the Task (default: from the handler, with a suffix).")
@click.option("--label", "label_texts", multiple=True, metavar="KEY=VALUE", help="Label of the Task.")
@click.option("-q", "--queue", metavar="NAME", help="Queue.")
@click.option("--priority", metavar="0-9", type=click.IntRange(0, 9), help="Priority, 9 first.")
@click.option("--max-attempts", type=click.IntRange(1, 100), help="How often it is tried.")
@click.option(
    "--dry-run",
    type=click.Choice(["client", "server"]),
    help="Create nothing. client: print the Task; server: let the API server check it and fill in defaults.",
)
@waiting_options
@timeout_option
@output_option
@cluster_options
def command(
    handler: str | None,
    files: tuple[str, ...],
    params: tuple[str, ...],
    args: tuple[str, ...],
    name: str,
    label_texts: tuple[str, ...],
    dry_run: str | None,
    wait: bool,
    watch: bool,
    timeout: float | None,
    form: Format,
    target: Target,
    **spec: Any,
) -> None:
    """Create a Task that runs HANDLER, or the Tasks of files.

    Options change what files say. Ctrl-C while it waits leaves the Task alone, and prints how to stop it.
    """
    waits = wait or watch
    if timeout is not None and not waits:
        raise CliError("--timeout needs --wait or --watch", code=Exit.USAGE)
    if waits and dry_run:
        raise CliError("--dry-run creates nothing to wait for; leave --wait and --watch out", code=Exit.USAGE)
    given = {
        "args": [manifest.json_or_text(each) for each in args],
        "queue": spec["queue"],
        "priority": spec["priority"],
        "retryPolicy": {"maxAttempts": spec["max_attempts"]} if spec["max_attempts"] else None,
    }
    kwargs, labels = manifest.parameters(params), manifest.labels(label_texts)
    bodies = [
        manifest.changed(body, name=name, more_labels=labels, kwargs=kwargs, **given)
        for body in _bodies(handler, files)
    ]
    if name and len(bodies) > 1:
        raise CliError(f"--name fits one Task, found {len(bodies)}", code=Exit.USAGE)
    if dry_run == "client":
        whole = Format("yaml") if form.for_people else form
        print_objects(bodies, TASKS, (), whole, target.surroundings, as_list=len(bodies) > 1)
        return
    _create(bodies, target, dry_run=dry_run == "server", waits=waits, watch=watch, timeout=timeout, form=form)


def _bodies(handler: str | None, files: Sequence[str]) -> list[dict[str, Any]]:
    if bool(handler) == bool(files):
        hint = "taskflow submit reports.summarise -p year=2026\ntaskflow submit -f task.yaml"
        raise CliError("say what to run: a handler, or a file with -f", hint=hint, code=Exit.USAGE)
    if handler:
        return [manifest.of_handler(handler)]
    return [body for file in files for body in manifest.from_text(read(file), "stdin" if file == "-" else file)]


def _create(
    bodies: Sequence[Object],
    target: Target,
    *,
    dry_run: bool,
    waits: bool,
    watch: bool,
    timeout: float | None,
    form: Format,
) -> None:
    kube = target.kube()
    for body in bodies:
        if (there := body["metadata"].get("namespace", kube.namespace)) != kube.namespace:
            raise CliError(
                f"the file names namespace {there}, and the command goes to {kube.namespace}",
                hint=f"add: -n {there}",
                code=Exit.INVALID,
            )
    created: list[Object] = []
    try:
        for body in bodies:
            created.append(kube.create(TASKS, body, dry_run=dry_run))
            if form.name == "table":
                how = "would be created (checked by the server)" if dry_run else "created"
                # While it waits, the outcome is the data.
                click.echo(f"task/{created[-1]['metadata']['name']} {how}", err=waits)
    finally:
        if form.name != "table" and not waits:
            print_objects(created, TASKS, columns.TASK_COLUMNS, form, target.surroundings, as_list=len(bodies) > 1)
    if waits:
        names = [task["metadata"]["name"] for task in created]
        follow(target, kube, names, watch=watch, timeout=timeout, form=form)
