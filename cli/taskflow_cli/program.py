"""The command `taskflow`: its subcommands, each imported only when it runs."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import click
from click.exceptions import NoSuchCommand

_ABOUT = """Submit Tasks of TaskFlow, follow them, and ask why they wait.

Commands go to the Kubernetes API with your kubeconfig, and may do what RBAC allows you. logs, items, cp and
list --history go to the REST API of TaskFlow, which alone has them: see login. What is printed on stdout is data;
everything else is on stderr."""
SECTIONS = {
    "Tasks": {
        "submit": "Create a Task from a handler or a file.",
        "list": "List Tasks.",
        "get": "Show Tasks by name.",
        "describe": "Show all there is to know about a Task.",
        "why": "Explain why a Task waits or how it ended.",
        "logs": "Print what a Task logs.",
        "items": "Show the results of the items of an array.",
        "cp": "Download an output of a Task.",
        "wait": "Wait for the end of Tasks.",
        "cancel": "Cancel Tasks.",
        "retry": "Run a Task that ended once more.",
        "suspend": "Take Tasks out of their queue.",
        "resume": "Let suspended Tasks run.",
        "delete": "Delete Tasks.",
    },
    "Workers and schedules": {
        "pool": "Look at WorkerPools, pause and drain them.",
        "schedule": "Look at TaskSchedules, run and convert them.",
    },
    "On this machine": {"dev": "Try your own handlers, with a reload at every save."},
    "This program": {
        "login": "Keep a token for a REST API.",
        "logout": "Forget the token for a REST API.",
        "completion": "Print a script that completes commands in a shell.",
        "version": "Print the versions of this program and of the cluster.",
    },
}
_SUMMARIES = {name: summary for section in SECTIONS.values() for name, summary in section.items()}
NAMES = list(_SUMMARIES)


class Program(click.Group):
    """A group that imports a command from `taskflow_cli.commands` when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's interface
        """All names, by section."""
        return NAMES

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import one command."""
        if cmd_name not in NAMES:
            return None
        command: click.Command = import_module(f"taskflow_cli.commands.{cmd_name}").command
        command.short_help = _SUMMARIES[cmd_name]
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click, but a typing error gets a suggestion from names that are not imported."""
        try:
            return super().resolve_command(ctx, args)
        except NoSuchCommand as error:
            raise NoSuchCommand(error.command_name, possibilities=NAMES, ctx=ctx) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the commands by section, importing none."""
        for title, section in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl(list(section.items()))


@click.group(
    cls=Program, help=_ABOUT, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}
)
def program() -> None:
    """Only its subcommands do something."""


def prepared(**extra: Any) -> dict[str, Any]:
    """How `program.main` is called: errors are raised, and completion has one variable for every name."""
    return {"standalone_mode": False, "complete_var": "_TASKFLOW_COMPLETE", **extra}
