"""`taskflow logout`."""

from __future__ import annotations

import click

from taskflow_cli.api import logins
from taskflow_cli.errors import CliError, Exit
from taskflow_cli.options import Command, Target, cluster_options, say


@click.command(cls=Command, examples=[("logout", "forget the token of the current context")])
@cluster_options
def command(target: Target) -> None:
    """Forget the token that `taskflow login` kept for the context in use. The token itself stays valid."""
    context, _ = target.here()
    path = logins.path_of(target.surroundings.environ)
    kept = logins.read(path)
    if context not in kept:
        raise CliError(f"there is no login for context {context!r}", code=Exit.NOT_FOUND)
    server = kept.pop(context).server
    logins.write(path, kept)
    say(f"forgot the token for {server}")
