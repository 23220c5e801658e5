"""`taskflow schedule`."""

from __future__ import annotations

import json
import secrets
import time
from itertools import islice
from typing import Any

import click

from taskflow_cli.cluster.client import SCHEDULES, TASKS, Kube
from taskflow_cli.errors import CliError, Exit
from taskflow_cli.files import read
from taskflow_cli.following import follow, waiting_options
from taskflow_cli.listing import print_all
from taskflow_cli.options import (
    Command,
    Target,
    cluster_options,
    complete_schedules,
    output_option,
    say,
    server_option,
    timeout_option,
)
from taskflow_cli.output.formats import Format, yaml_of
from taskflow_cli.output.tables import table
from taskflow_cli.schedules import (
    RUN_COLUMNS,
    RUN_NOW,
    SCHEDULE_COLUMNS,
    TICK_COLUMNS,
    run_name,
    seen_to,
    waiting_token,
)

_POLL_SECONDS = 0.2
_MOST_RUNS = 500


@click.group("schedule")
def command() -> None:
    """Look at TaskSchedules, run and suspend them; make them of CronJobs and beat schedules."""


@command.command(
    "list",
    cls=Command,
    examples=[
        ("schedule list", "when each ran last, how that ended, and when it runs next"),
        ("schedule list -A -o wide", "of all namespaces, with what was skipped and missed"),
    ],
)
@click.option("-A", "--all-namespaces", is_flag=True, help="Of all namespaces.")
@output_option
@cluster_options
def list_schedules(all_namespaces: bool, form: Format, target: Target) -> None:
    """List TaskSchedules."""
    print_all(target, SCHEDULES, SCHEDULE_COLUMNS, form, all_namespaces=all_namespaces)


_names = click.argument("names", metavar="NAME...", nargs=-1, required=True, shell_complete=complete_schedules)
_name = click.argument("name", shell_complete=complete_schedules)


def _suspend(names: tuple[str, ...], target: Target, suspend: bool, done: str) -> None:
    kube = target.kube()
    for name in map(SCHEDULES.bare, names):
        kube.patch(SCHEDULES, name, {"spec": {"suspend": suspend}})
        click.echo(f"taskschedule/{name} {done}")


@command.command(cls=Command, examples=[("schedule suspend nightly", "nothing is run until it is resumed")])
@_names
@cluster_options
def suspend(names: tuple[str, ...], target: Target) -> None:
    """Run nothing until the schedules are resumed. Tasks that run go on."""
    _suspend(names, target, suspend=True, done="suspended")


@command.command(cls=Command, examples=[("schedule resume nightly", "go on with the next time; none is caught up")])
@_names
@cluster_options
def resume(names: tuple[str, ...], target: Target) -> None:
    """Go on with the next time. Those that passed meanwhile are not caught up."""
    _suspend(names, target, suspend=False, done="resumed")


@command.command(
    cls=Command,
    examples=[
        ("schedule run nightly --wait", "now, outside of its timing; the exit code is the outcome"),
        ("schedule run nightly -o name", "print only the name of the Task, for a script"),
    ],
)
@_name
@waiting_options
@timeout_option
@output_option
@cluster_options
def run(name: str, wait: bool, watch: bool, timeout: float | None, form: Format, target: Target) -> None:
    """Run a schedule now, also a suspended one. The operator creates the Task.

    While an earlier run is going on, concurrencyPolicy decides: with Forbid there is no Task, and with --wait the exit
    code is 5; with Queue and Replace it is created after the end of the earlier one.
    """
    waits = wait or watch
    if timeout is not None and not waits:
        raise CliError("--timeout needs --wait or --watch", code=Exit.USAGE)
    if not waits and form.name not in {"table", "name"}:
        raise CliError(f"-o {form.name} needs --wait: the Task is not there yet", code=Exit.USAGE)
    kube = target.kube()
    name = SCHEDULES.bare(name)
    token = _ask(kube, name)
    task = run_name(name, token)
    if form.name == "name" and not waits:
        click.echo(f"{TASKS.kind.lower()}.{TASKS.group}/{task}")
    else:
        click.echo(f"task/{task} asked for", err=waits)
    if waits:
        began = time.monotonic()
        _wait_until_there(kube, name, token, timeout)
        left = None if timeout is None else max(0.0, timeout - (time.monotonic() - began))
        follow(target, kube, [task], watch=watch, timeout=left, form=form)


def _ask(kube: Kube, name: str) -> str:
    """Ask for a run; the token."""
    schedule = kube.get(SCHEDULES, name)
    if before := waiting_token(schedule):
        raise CliError(
            f"cannot run TaskSchedule {name!r}",
            f"{run_name(name, before)} was asked for, and the operator has not created it yet",
            hint="an earlier run is going on, or the operator does not run; a new request would take its place",
            code=Exit.CONFLICT,
        )
    token = secrets.token_hex(8)
    # With the version: of two who ask at the same time, one is told.
    version = schedule["metadata"]["resourceVersion"]
    kube.patch(SCHEDULES, name, {"metadata": {"resourceVersion": version, "annotations": {RUN_NOW: token}}})
    return token


def _wait_until_there(kube: Kube, name: str, token: str, timeout: float | None) -> None:
    task = run_name(name, token)
    deadline = None if timeout is None else time.monotonic() + timeout
    try:
        while kube.find(TASKS, task) is None:
            # Twice, since the Task is created before the status says so.
            if seen_to(kube.get(SCHEDULES, name), token) and kube.find(TASKS, task) is None:
                raise CliError(
                    f"TaskSchedule {name!r} has no Task {task!r}",
                    "an earlier run is going on and concurrencyPolicy is Forbid, or the Task has ended and was deleted",
                    hint=f"see: taskflow list -l taskflow.dev/schedule={name}",
                    code=Exit.CONFLICT,
                )
            if deadline is not None and time.monotonic() >= deadline:
                raise CliError(
                    f"Task {task!r} was not created in time",
                    hint="it is, when the earlier run has ended; does the operator run?",
                    code=Exit.TIMEOUT,
                )
            time.sleep(_POLL_SECONDS)
    except KeyboardInterrupt:
        raise CliError("interrupted", f"{task} is still asked for", code=Exit.INTERRUPTED) from None


@command.command(
    "next",
    cls=Command,
    examples=[("schedule next nightly --count 5", "the next five times, in your zone and in that of the schedule")],
)
@_name
@click.option("--count", type=click.IntRange(1, 100), default=10, show_default=True, help="How many.")
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True)
@server_option
@cluster_options
def next_ticks(name: str, count: int, output: str, server: str, target: Target) -> None:
    """Show the next times of a schedule, without jitter. By the REST API."""
    rest = target.rest(server)
    name = SCHEDULES.bare(name)
    found = rest.read(rest.path("schedules", name, "next", count=count), f"cannot read TaskSchedule {name!r}")
    if output == "json":
        click.echo(json.dumps(found, indent=4, ensure_ascii=False))
        return
    if found.get("suspended"):
        say(f"{name} is suspended: it runs at none of them until it is resumed")
    _print_rows(found["items"], TICK_COLUMNS, target)


@command.command(
    cls=Command,
    examples=[
        ("schedule runs nightly", "which time became which Task, and why others did not; newest first"),
        ("schedule runs nightly --outcome Missed -o jsonl", "what was missed, for a program"),
    ],
)
@_name
@click.option("--outcome", type=click.Choice(["Created", "Skipped", "Missed"]), help="Only these.")
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, metavar="N", help="At most so many.")
@click.option("-o", "--output", type=click.Choice(["table", "jsonl"]), default="table", show_default=True)
@server_option
@cluster_options
def runs(name: str, outcome: str | None, limit: int, output: str, server: str, target: Target) -> None:
    """Show the past of a schedule, also of one that was deleted. By the REST API."""
    rest = target.rest(server)
    name = SCHEDULES.bare(name)
    what = f"cannot read the runs of TaskSchedule {name!r}"
    query = {"outcome": outcome, "limit": min(limit, _MOST_RUNS)}
    pages = rest.pages("schedules", name, "runs", what=what, after="cursor", following="nextCursor", **query)
    rows = list(islice(pages, limit))
    if output == "jsonl":
        for row in rows:
            click.echo(json.dumps(row, ensure_ascii=False))
        return
    if not rows:
        say(f"the history has no such runs of {name}")
    _print_rows(rows, RUN_COLUMNS, target)


def _print_rows(rows: list[Any], columns: Any, target: Target) -> None:
    here = target.surroundings.screen()
    click.echo(table(columns, rows, target.surroundings.now(), here), nl=False, color=here.colour)


@command.command(
    cls=Command,
    examples=[
        ("schedule convert cronjob.yaml --handler reports.nightly > schedule.yaml", "a CronJob as a handler"),
        ("schedule convert celery_app.py > schedules.yaml", "the beat_schedule of a Celery application"),
        ("schedule convert --from cronjob - < cronjob.yaml", "from stdin, e.g. of kubectl get cronjobs -o yaml"),
    ],
)
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(dir_okay=False, allow_dash=True))
@click.option(
    "--from",
    "kind",
    type=click.Choice(["cronjob", "beat"]),
    help="What the files have (default: beat for *.py, else cronjob).",
)
@click.option("--handler", metavar="NAME", default="", help="Handler of the Tasks, for CronJobs.")
def convert(files: tuple[str, ...], kind: str | None, handler: str) -> None:
    """Print TaskSchedules for CronJobs, or for the `beat_schedule` of a Celery application.

    A Python file is parsed and never run. What has no counterpart is said on stderr: as a warning where it is left out
    of a TaskSchedule, and as an error where no TaskSchedule is printed; then the exit code is 6.
    """
    from taskflow_cli.conversion import beat, cronjob  # noqa: PLC0415 - no other command needs them
    from taskflow_cli.conversion.schedule import Conversion  # noqa: PLC0415

    done = Conversion()
    for file in files:
        text, source = read(file), "stdin" if file == "-" else file
        if kind == "beat" or (kind is None and file.endswith(".py")):
            if handler:
                raise CliError("--handler is for CronJobs; a beat schedule names its tasks", code=Exit.USAGE)
            done.add(beat.convert(text, source))
        else:
            done.add(cronjob.convert(_documents(text, source), handler, source))
    click.echo("---\n".join(map(yaml_of, done.schedules)), nl=False)
    for warning in done.warnings:
        say(f"warning: {warning}")
    for error in done.errors[:-1]:
        say(f"error: {error}")
    if done.errors:
        raise CliError(done.errors[-1], code=Exit.INVALID)


def _documents(text: str, source: str) -> list[object]:
    import yaml  # noqa: PLC0415 - likewise

    try:
        return list(yaml.load_all(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
    except yaml.YAMLError as error:
        raise CliError(f"{source} is no YAML", " ".join(str(error).split()), code=Exit.INVALID) from None
