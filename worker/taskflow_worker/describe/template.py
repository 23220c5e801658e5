"""The TaskTemplate of the handlers of a worker, as YAML with comments, and its difference from a file."""

from __future__ import annotations

import difflib
import inspect
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from taskflow_core.domain import naming
from taskflow_core.domain import template_bounds as bounds
from taskflow_core.errors import Invalid
from taskflow_worker.describe.narrowing import lines_of, narrow
from taskflow_worker.handlers import builtin
from taskflow_worker.handlers.celery_tasks import CeleryHandler
from taskflow_worker.sdk.binding import FunctionHandler
from taskflow_worker.sdk.registry import Registry
from taskflow_worker.sdk.runnable import Runnable

KIND = "TaskTemplate"
MOST_DESCRIPTION_CHARS = 1024


@dataclass(frozen=True)
class Described:
    """One handler of a TaskTemplate."""

    entry: dict[str, Any]
    """Its part of `spec.handlers`: name, description, kwargs."""
    left_out: list[str]
    """What its kwargs do not say, a line each."""


def describe(registry: Registry) -> list[Described]:
    """The handlers of a registry by name, without those that every worker has.

    Raises:
        Invalid: there are none, or more than a TaskTemplate may have.
    """
    found = [registry.find(name) for name in registry.names]
    described = [_described(each) for each in found if _module(each) != builtin.__name__]
    if not 0 < len(described) <= bounds.MOST_HANDLERS:
        raise Invalid(
            f"found {len(described)} handlers, expected 1 to {bounds.MOST_HANDLERS}; name modules with --module or "
            "TASKFLOW_WORKER_HANDLERS, or a Celery application with --app"
        )
    return described


def _module(handler: Runnable) -> str:
    return str(handler.function.__module__) if isinstance(handler, FunctionHandler) else ""


def _described(handler: Runnable) -> Described:
    entry: dict[str, Any] = {"name": handler.name}
    function = handler.task.run if isinstance(handler, CeleryHandler) else getattr(handler, "function", None)
    summary = (inspect.getdoc(inspect.unwrap(function)) or "").partition("\n\n")[0] if function is not None else ""
    if summary:
        entry["description"] = " ".join(summary.split())[:MOST_DESCRIPTION_CHARS]
    if isinstance(handler, CeleryHandler) and not handler.task.typing:
        return Described(entry, ["kwargs: the task is declared with typing=False"])
    try:
        schema = FunctionHandler(handler.name, function).kwargs_schema() if function is not None else {}
    except Invalid as error:
        return Described(entry, [f"kwargs: {error}"])
    narrowed = narrow(schema, "kwargs")
    return Described(entry | {"kwargs": narrowed.schema}, narrowed.left_out)


def text(described: Iterable[Described], name: str) -> str:
    """The manifest as YAML. What the schemas cannot say stands in comments."""
    head = {"apiVersion": naming.API_VERSION, "kind": KIND, "metadata": {"name": name}}
    parts = ["# Written by `taskflow-worker describe`.\n", _yaml(head), "spec:\n  handlers:\n"]
    for each in described:
        parts += [f"    # {line}\n" for line in lines_of(each.left_out)]
        parts.append(textwrap.indent(_yaml([each.entry]), "    "))
    return "".join(parts)


def drift(described: Iterable[Described], file: str, name: str | None, shown: str) -> str:
    """The difference of a file from the handlers, as a unified diff; empty if there is none.

    Only what `describe` writes counts: a file may add defaults, allow, deprecated and revision.

    Args:
        described: the handlers.
        file: the content of a YAML file.
        name: the TaskTemplate of the file to compare with; None for its only one.
        shown: the name of the file.

    Raises:
        Invalid: the file is no YAML, or does not have one such TaskTemplate.
    """
    ours = {each.entry["name"]: each.entry for each in described}
    theirs = {str(each.get("name")): each for each in _handlers(file, name, shown)}
    keys = ("name", "description", "kwargs")
    written = [{key: each[key] for key in keys if key in each} for _, each in sorted(theirs.items())]
    wanted = [each for _, each in sorted(ours.items())]
    if written == wanted:
        return ""
    lines = difflib.unified_diff(_lines(written), _lines(wanted), shown, "handlers of this worker")
    return "".join(lines)


def _handlers(file: str, name: str | None, shown: str) -> list[Mapping[str, Any]]:
    try:
        documents = list(yaml.safe_load_all(file))
    except yaml.YAMLError as error:
        raise Invalid(f"{shown}: expected YAML: {error}") from error
    found = [each for each in documents if isinstance(each, dict) and each.get("kind") == KIND]
    if name is not None:
        found = [each for each in found if _at(each, "metadata", "name") == name]
    if len(found) != 1:
        wanted = f"one {KIND}" if name is None else f"one {KIND} named {name}"
        raise Invalid(f"{shown}: expected {wanted}, found {len(found)}; choose one with --name")
    handlers = _at(found[0], "spec", "handlers")
    if not isinstance(handlers, list) or not all(isinstance(each, dict) for each in handlers):
        raise Invalid(f"{shown}: expected a list of objects in spec.handlers")
    return handlers


def _at(document: Any, *keys: str) -> Any:
    for key in keys:
        document = document.get(key) if isinstance(document, dict) else None
    return document


def _lines(entries: list[dict[str, Any]]) -> list[str]:
    return list(_each_line(entries))


def _each_line(entries: list[dict[str, Any]]) -> Iterator[str]:
    yield from _yaml(entries, sort=True).splitlines(keepends=True)


def _yaml(content: Any, *, sort: bool = False) -> str:
    return yaml.safe_dump(content, sort_keys=sort, allow_unicode=True, width=120)
