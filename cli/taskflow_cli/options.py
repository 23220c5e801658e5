"""What commands share: where the cluster is, how results are printed, and examples in the help."""

from __future__ import annotations

import functools
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from taskflow_cli.api import logins
from taskflow_cli.api.client import Rest
from taskflow_cli.api.logins import Login
from taskflow_cli.cluster import kubeconfig
from taskflow_cli.cluster.client import POOLS, SCHEDULES, TASKS, Kube, Object, Resource
from taskflow_cli.cluster.credentials import credentials_of
from taskflow_cli.cluster.kubeconfig import Access, Impersonation
from taskflow_cli.cluster.transport import HttpTransport, Transport
from taskflow_cli.errors import CliError, Exit
from taskflow_cli.output import formats, jsonpath, times
from taskflow_cli.output.formats import Format
from taskflow_cli.output.tables import Column, Screen, table
from taskflow_cli.output.text import safe

F = TypeVar("F", bound=Callable[..., Any])
_SECONDS = 30.0
_COMPLETION_SECONDS = 3.0


def _connect(access: Access, seconds: float) -> Transport:
    return HttpTransport(access, credentials_of(access, os.environ), seconds)


def _now() -> datetime:
    return datetime.now(UTC)


def screen() -> Screen:
    """What stdout is: a terminal with its width, or a file or pipe."""
    if not sys.stdout.isatty():
        return Screen()
    plain = "NO_COLOR" in os.environ or os.environ.get("TERM") == "dumb"
    return Screen(shutil.get_terminal_size().columns, not plain)


@dataclass(frozen=True)
class Surroundings:
    """What a command has from outside; tests give others."""

    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    connect: Callable[[Access, float], Transport] = _connect
    now: Callable[[], datetime] = _now
    screen: Callable[[], Screen] = screen


@dataclass(frozen=True)
class Target:
    """Where a command goes, as its options say."""

    surroundings: Surroundings
    namespace: str = ""
    context: str = ""
    kubeconfig: Path | None = None
    impersonation: Impersonation = field(default_factory=Impersonation)

    def access(self) -> Access:
        """The server and the identity, from the kubeconfig, else from the pod that this runs in.

        Raises:
            CliError: neither has one.
        """
        environ = self.surroundings.environ
        paths = kubeconfig.paths_of(environ, self.kubeconfig)
        config = kubeconfig.read(paths, required=self.kubeconfig is not None)
        found = None if config.contexts or self.kubeconfig else kubeconfig.in_cluster(environ)
        access = found or kubeconfig.access_of(config, self.context)
        if self.namespace:
            access = replace(access, namespace=self.namespace)
        if self.impersonation.user or self.impersonation.groups:
            if not self.impersonation.user:
                raise CliError("--as-group needs --as", code=Exit.USAGE)
            access = replace(access, impersonation=self.impersonation)
        return access

    def here(self) -> tuple[str, str]:
        """Names of the context and the namespace, also where there is no cluster.

        Raises:
            CliError: the kubeconfig is invalid, or has no such context.
        """
        config = kubeconfig.read(kubeconfig.paths_of(self.surroundings.environ, self.kubeconfig))
        if not config.contexts and not self.context:
            return "", self.namespace or "default"
        access = self.access()
        return access.context, access.namespace

    def rest(self, server: str = "") -> Rest:
        """The REST API in the chosen namespace.

        Args:
            server: The URL of `--server`, or empty.

        Raises:
            CliError: it is not known, or there is no token for it; options that it does not have.
        """
        if self.impersonation.user or self.impersonation.groups:
            raise CliError("--as and --as-group are for the Kubernetes API only", code=Exit.USAGE)
        context, namespace = self.here()
        login = logins.find(self.surroundings.environ, server, context)
        return Rest(self.surroundings.connect(rest_access(login), _SECONDS), namespace)

    def kube(self, seconds: float = _SECONDS) -> Kube:
        """The API server in the chosen namespace.

        Args:
            seconds: How long to wait for an answer.

        Raises:
            CliError: no cluster is chosen, or its credentials cannot be had.
        """
        access = self.access()
        return Kube(self.surroundings.connect(access, seconds), access.namespace)


def rest_access(login: Login) -> Access:
    """How a REST API is reached.

    Raises:
        CliError: the file with its authority cannot be read.
    """
    try:
        ca = Path(login.ca).read_text("ascii") if login.ca else ""
    except (OSError, UnicodeDecodeError) as error:
        raise CliError(f"cannot read the authority {login.ca}", str(error)) from None
    return Access(login.server, ca=ca, token=login.token)


class Command(click.Command):
    """A command whose help ends with examples.

    Args:
        examples: Pairs of arguments after `taskflow` and what they do.
    """

    def __init__(self, *args: Any, examples: Sequence[tuple[str, str]] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.examples = examples

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples."""
        if self.examples:
            program = ctx.find_root().info_name
            with formatter.section("Examples"):
                for arguments, does in self.examples:
                    formatter.write(f"  # {does}\n  {program} {arguments}\n")


def _named_completion(resource: Resource) -> Callable[[click.Context, click.Parameter, str], list[CompletionItem]]:
    def complete(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
        target = _target(ctx, {name: ctx.params.get(name) for name in _TARGET_OPTIONS})
        try:
            found = target.kube(_COMPLETION_SECONDS).list(resource, limit=500)
        except CliError:
            return []
        names = [each["metadata"]["name"] for each in found]
        return [CompletionItem(name) for name in names if name.startswith(incomplete)]

    return complete


complete_tasks = _named_completion(TASKS)
complete_pools = _named_completion(POOLS)
complete_schedules = _named_completion(SCHEDULES)


def _complete_contexts(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    surroundings = ctx.find_object(Surroundings) or Surroundings()
    try:
        config = kubeconfig.read(kubeconfig.paths_of(surroundings.environ, ctx.params.get("kubeconfig")))
    except CliError:
        return []
    return [CompletionItem(name) for name in sorted(config.contexts) if name.startswith(incomplete)]


_TARGET_OPTIONS = ("namespace", "context", "kubeconfig", "as_user", "as_groups")


def _target(ctx: click.Context, chosen: Mapping[str, Any]) -> Target:
    return Target(
        ctx.find_object(Surroundings) or Surroundings(),
        chosen["namespace"] or "",
        chosen["context"] or "",
        chosen["kubeconfig"],
        Impersonation(chosen["as_user"] or "", tuple(chosen["as_groups"] or ())),
    )


def cluster_options(command: F) -> F:
    """Adds the options that choose a cluster and a namespace; the command gets them as `target`."""

    @functools.wraps(command)
    def with_target(*args: Any, **kwargs: Any) -> Any:
        chosen = {name: kwargs.pop(name) for name in _TARGET_OPTIONS}
        return command(*args, target=_target(click.get_current_context(), chosen), **kwargs)

    options = (
        click.option("-n", "--namespace", metavar="NAME", help="Namespace (default: that of the context)."),
        click.option("--context", metavar="NAME", shell_complete=_complete_contexts, help="Context of the kubeconfig."),
        click.option(
            "--kubeconfig",
            type=click.Path(dir_okay=False, path_type=Path),
            help="Kubeconfig file (default: those of KUBECONFIG, then ~/.kube/config).",
        ),
        click.option("--as", "as_user", metavar="USER", help="Act as this user."),
        click.option("--as-group", "as_groups", metavar="GROUP", multiple=True, help="Act as this group too."),
    )
    for option in reversed(options):
        with_target = option(with_target)
    return with_target  # type: ignore[return-value]


def _format(_: click.Context, __: click.Parameter, value: str) -> Format:
    return formats.parse(value)


def _complete_format(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(each) for each in formats.NAMES if each.startswith(incomplete)]


server_option = click.option(
    "--server",
    metavar="URL",
    default="",
    help="The REST API (default: TASKFLOW_API_URL, then where `taskflow login` logged in for this context).",
)

output_option = click.option(
    "-o",
    "--output",
    "form",
    metavar="FORMAT",
    default="table",
    callback=_format,
    shell_complete=_complete_format,
    help="table, wide, name, json, yaml or jsonpath=TEMPLATE.",
)


def _seconds(_: click.Context, __: click.Parameter, value: str | None) -> float | None:
    return None if value is None else times.seconds_of(value)


timeout_option = click.option(
    "--timeout", metavar="DURATION", callback=_seconds, help="Give up after this, e.g. 90s or 5m, with exit code 124."
)


def say(line: str) -> None:
    """A line for the user, on stderr: stdout is data."""
    click.echo(safe(line), err=True)


def print_objects(
    found: Sequence[Object],
    resource: Resource,
    columns: Sequence[Column],
    form: Format,
    surroundings: Surroundings,
    *,
    as_list: bool,
    headers: bool = True,
) -> None:
    """Print objects in a format; as one `List` if `as_list`, else each on its own."""
    if form.for_people:
        here = surroundings.screen()
        text = table(columns, found, surroundings.now(), here, wide=form.name == "wide")
        click.echo(text if headers else text.partition("\n")[2], nl=False, color=here.colour)
    elif form.name == "name":
        for each in found:
            click.echo(f"{resource.kind.lower()}.{resource.group}/{each['metadata']['name']}")
    elif as_list:
        click.echo(formats.document(formats.listed(found), form), nl=False)
    else:
        for each in found:
            click.echo(formats.document(each, form), nl=False)


def sort_by(found: list[Object], path: str | None) -> list[Object]:
    """The objects in the order of what a JSONPath finds in them; those without come first.

    Raises:
        CliError: the path is invalid, or finds values that cannot be compared.
    """
    if path is None:
        return found

    values = [(jsonpath.find(path, each), each) for each in found]
    without = [each for found_there, each in values if not found_there]
    try:
        ordered = sorted((pair for pair in values if pair[0]), key=lambda pair: pair[0][0])
    except TypeError:
        raise CliError(f"--sort-by {path!r} finds values that cannot be compared", code=Exit.USAGE) from None
    return without + [each for _, each in ordered]
