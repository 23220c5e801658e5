"""`taskflow version`."""

from __future__ import annotations

import json

import click

from taskflow_cli.errors import CliError
from taskflow_cli.options import Command, Target, cluster_options


@click.command(
    cls=Command,
    examples=[
        ("version", "the versions of this program and of the cluster"),
        ("version --client", "of this program alone, without asking a server"),
    ],
)
@click.option("--client", is_flag=True, help="Ask no server.")
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
@cluster_options
def command(client: bool, output: str, target: Target) -> None:
    """Print the version of this program, of the cluster, and of the API of TaskFlow there."""
    from importlib.metadata import version  # noqa: PLC0415 - slow, and needed here only

    found = {"taskflow": version("taskflow-operator")}
    if not client:
        kube = target.kube()
        found["kubernetes"] = str(kube.raw("/version").get("gitVersion", ""))
        try:
            group = kube.raw("/apis/taskflow.dev")
            found["taskflow.dev"] = ", ".join(each["version"] for each in group["versions"])
        except CliError:
            found["taskflow.dev"] = "not installed"
    if output == "json":
        click.echo(json.dumps(found, indent=4))
    else:
        for name, value in found.items():
            click.echo(f"{name + ':':<14}{value}")
