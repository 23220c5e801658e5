"""`taskflow login`."""

from __future__ import annotations

import sys
from pathlib import Path
from urllib.parse import urlsplit

import click

from taskflow_cli.api import logins
from taskflow_cli.api.client import Rest
from taskflow_cli.api.logins import Login
from taskflow_cli.errors import CliError, Exit
from taskflow_cli.files import read
from taskflow_cli.options import Command, Target, cluster_options, rest_access, say

_SECONDS = 30.0
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


@click.command(
    cls=Command,
    examples=[
        ("login --server https://taskflow.example.com", "asks for an API key, and keeps it for the current context"),
        ("login --server https://taskflow.example.com --token-file key.txt", "the key from a file; - is stdin"),
    ],
)
@click.option("--server", metavar="URL", required=True, help="The REST API.")
@click.option(
    "--token-file", metavar="FILE", help="File with the token; - is stdin. Without it, the token is asked for."
)
@click.option(
    "--ca-file",
    metavar="FILE",
    type=click.Path(dir_okay=False, exists=True, path_type=Path),
    help="Authority of its certificate, as PEM (default: those of this machine).",
)
@cluster_options
def command(server: str, token_file: str | None, ca_file: Path | None, target: Target) -> None:
    """Keep a token for a REST API, for the context of the kubeconfig in use.

    The token is an API key, a token of Kubernetes or of the OIDC issuer. It is tried, then written to
    ~/.config/taskflow/config.yaml (XDG_CONFIG_HOME), which only you may read, and is sent to this server only.
    """
    server = logins.server_of(server)
    context, namespace = target.here()
    token = _token(token_file)
    login = Login(server, token, str(ca_file.absolute()) if ca_file else "")
    url = urlsplit(server)
    if url.scheme == "http" and url.hostname not in _LOOPBACK:
        say("warning: http:// is not encrypted; whoever sees the connection sees the token")
    rest = Rest(target.surroundings.connect(rest_access(login), _SECONDS), namespace)
    try:
        rest.read(rest.path("tasks", limit=1), f"cannot log in to {server}")
    except CliError as error:
        if error.status != 403:  # noqa: PLR2004 - known, and without rights in this namespace
            raise
        say(f"warning: the token is valid, and may not list Tasks in namespace {namespace}")
    path = logins.path_of(target.surroundings.environ)
    logins.write(path, {**logins.read(path), context: login})
    say(f"logged in to {server}" + (f" for context {context}" if context else ""))


def _token(file: str | None) -> str:
    if file is not None:
        token = read(file).strip()
    elif sys.stdin.isatty():
        token = str(click.prompt("Token", hide_input=True, err=True)).strip()
    else:
        raise CliError("--token-file is missing", "there is no terminal to ask for the token", code=Exit.USAGE)
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise CliError("expected a token: one line without spaces", code=Exit.INVALID)
    return token
