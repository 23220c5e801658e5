"""Lists of the objects of a kind, as commands print them."""

from __future__ import annotations

from collections.abc import Sequence

from taskflow_cli.cluster.client import Resource
from taskflow_cli.options import Target, print_objects, say
from taskflow_cli.output.formats import Format
from taskflow_cli.output.tables import Column
from taskflow_cli.tasks.columns import NAMESPACE


def print_all(
    target: Target, resource: Resource, columns: Sequence[Column], form: Format, *, all_namespaces: bool
) -> None:
    """Print the objects of a kind, and say so on stderr if there are none.

    Raises:
        CliError: they cannot be listed.
    """
    kube = target.kube()
    found = kube.list(resource, all_namespaces=all_namespaces)
    if not found and form.for_people:
        say(f"no {resource.kind}s" + (" found" if all_namespaces else f" in namespace {kube.namespace}"))
    shown = (NAMESPACE, *columns) if all_namespaces else columns
    print_objects(found, resource, shown, form, target.surroundings, as_list=True)
