"""`taskflow items`."""

from __future__ import annotations

import json
from datetime import datetime
from itertools import islice
from typing import Any

import click

from taskflow_cli.cluster.client import TASKS
from taskflow_cli.options import Command, Target, cluster_options, complete_tasks, say, server_option
from taskflow_cli.output.tables import Column, table

_PAGE = 1000


def _indexes(row: Any, _: datetime) -> str:
    return str(row["first"]) if row["first"] == row["last"] else f"{row['first']}-{row['last']}"


def _outcome(row: Any, _: datetime) -> str:
    if row["state"] == "failed":
        return ": ".join(str(row[field]) for field in ("reason", "errorType", "message") if row.get(field))
    return "" if row.get("result") is None else json.dumps(row["result"], ensure_ascii=False)


_COLUMNS = (
    Column("ITEMS", _indexes),
    Column("STATE", lambda row, _: str(row["state"]), colour={"failed": 31, "succeeded": 32}.get),
    Column("ATTEMPTS", lambda row, _: str(row["attempts"])),
    Column("RESULT", _outcome, shrinks=True),
)


@click.command(
    cls=Command,
    examples=[
        ("items big-array --state failed", "which items failed, and why"),
        ("items big-array -o jsonl | jq .result", "all results, for a program"),
    ],
)
@click.argument("name", shell_complete=complete_tasks)
@click.option("--state", type=click.Choice(["succeeded", "failed"]), help="Only these.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="At most so many lines.")
@click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "jsonl"]),
    default="table",
    show_default=True,
    help="jsonl: one JSON object in each line.",
)
@server_option
@cluster_options
def command(name: str, state: str | None, limit: int | None, output: str, server: str, target: Target) -> None:
    """Show the items of an array that have ended, by index; neighbours with the same outcome are one line. By the REST
    API.
    """
    rest = target.rest(server)
    name = TASKS.bare(name)
    what = f"cannot read the items of Task {name!r}"
    found = rest.pages("tasks", name, "items", what=what, after="after", following="next", state=state, limit=_PAGE)
    rows = islice(found, limit)
    if output == "jsonl":
        for row in rows:
            click.echo(json.dumps(row, ensure_ascii=False))
        return
    here = target.surroundings.screen()
    shown = list(rows)
    if not shown:
        say(f"no {state or 'ended'} items")
    click.echo(table(_COLUMNS, shown, target.surroundings.now(), here), nl=False, color=here.colour)
