"""`taskflow completion`."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from taskflow_cli.options import Command

SHELLS = ("bash", "zsh", "fish")


@click.command(
    cls=Command,
    examples=[
        ("completion bash", "for bash 4.4 or newer: add to ~/.bashrc `source <(taskflow completion bash)`"),
        ("completion zsh", "for zsh: add to ~/.zshrc, after compinit, `source <(taskflow completion zsh)`"),
        ("completion fish", "for fish: save it as ~/.config/fish/completions/taskflow.fish"),
    ],
)
@click.argument("shell", type=click.Choice(SHELLS))
def command(shell: str) -> None:
    """Print a script that completes commands, options and the names of Tasks, pools and contexts in a shell.

    For `kubectl taskflow`, kubectl finds the program kubectl_complete-taskflow on PATH, which is installed beside this
    one.
    """
    kind = get_completion_class(shell)
    assert kind is not None  # noqa: S101 - of these three shells click has one
    whole = click.get_current_context().find_root().command
    click.echo(kind(whole, {}, "taskflow", "_TASKFLOW_COMPLETE").source())
