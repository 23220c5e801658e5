"""`taskflow pool`."""

from __future__ import annotations

import click

from taskflow_cli.cluster.client import POOLS
from taskflow_cli.listing import print_all
from taskflow_cli.options import (
    Command,
    Target,
    cluster_options,
    complete_pools,
    output_option,
)
from taskflow_cli.output.formats import Format
from taskflow_cli.pools import POOL_COLUMNS


@click.group("pool")
def command() -> None:
    """Look at WorkerPools, pause and drain them."""


@command.command(
    "list",
    cls=Command,
    examples=[
        ("pool list", "the pools of the namespace, their workers and what waits for them"),
        ("pool list -A -o wide", "of all namespaces, with scaling and why a pool is not ready"),
    ],
)
@click.option("-A", "--all-namespaces", is_flag=True, help="Of all namespaces.")
@output_option
@cluster_options
def list_pools(all_namespaces: bool, form: Format, target: Target) -> None:
    """List WorkerPools."""
    print_all(target, POOLS, POOL_COLUMNS, form, all_namespaces=all_namespaces)


def _change(names: tuple[str, ...], target: Target, change: dict[str, bool], done: str) -> None:
    kube = target.kube()
    for name in map(POOLS.bare, names):
        kube.patch(POOLS, name, {"spec": change})
        click.echo(f"workerpool/{name} {done}")


_names = click.argument("names", metavar="NAME...", nargs=-1, required=True, shell_complete=complete_pools)


@command.command(cls=Command, examples=[("pool pause main", "its workers stay, and take no new Tasks")])
@_names
@cluster_options
def pause(names: tuple[str, ...], target: Target) -> None:
    """Let workers finish what they run and take no new Tasks. The workers stay."""
    _change(names, target, {"paused": True}, "paused")


@command.command(
    cls=Command, examples=[("pool drain main", "before maintenance: its workers finish what they run, and exit")]
)
@_names
@cluster_options
def drain(names: tuple[str, ...], target: Target) -> None:
    """Let workers finish what they run, take no new Tasks, and exit."""
    _change(names, target, {"drain": True}, "is draining")


@command.command(cls=Command, examples=[("pool resume main", "its workers take Tasks again, after a pause or a drain")])
@_names
@cluster_options
def resume(names: tuple[str, ...], target: Target) -> None:
    """End a pause or a drain."""
    _change(names, target, {"paused": False, "drain": False}, "resumed")
