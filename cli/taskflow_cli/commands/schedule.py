"""`taskflow schedule`."""

from __future__ import annotations

import click
import yaml

from taskflow_cli.conversion import beat, cronjob
from taskflow_cli.conversion.schedule import Conversion
from taskflow_cli.errors import CliError, Exit
from taskflow_cli.files import read
from taskflow_cli.options import Command, say
from taskflow_cli.output.formats import yaml_of


@click.group("schedule")
def command() -> None:
    """Turn CronJobs and beat schedules into TaskSchedules."""


@command.command(
    cls=Command,
    examples=[
        (
            "schedule convert cronjob.yaml --handler reports.nightly > schedule.yaml",
            "a CronJob as a handler",
        ),
        ("schedule convert celery_app.py > schedules.yaml", "the beat_schedule of a Celery application"),
        (
            "schedule convert --from cronjob - < cronjob.yaml",
            "from stdin, e.g. of kubectl get cronjobs -o yaml",
        ),
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
    try:
        return list(yaml.load_all(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
    except yaml.YAMLError as error:
        raise CliError(f"{source} is no YAML", " ".join(str(error).split()), code=Exit.INVALID) from None
