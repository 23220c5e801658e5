"""Task manifests from arguments and files. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from taskflow_cli.errors import CliError, Exit

API_VERSION = "taskflow.dev/v1alpha1"
RETRIED_FROM = "taskflow.dev/retried-from"
_MAX_PREFIX = 200
"""Characters of a name that a new one begins with, so that a suffix still fits into 253."""


def parameters(texts: Sequence[str]) -> dict[str, Any]:
    """Keyword arguments from `key=value`: the value is JSON if it can be read as JSON, else text.

    Raises:
        CliError: there is no `=`, no key, or a key comes twice.
    """
    found: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise CliError(f"expected -p key=value, found {text!r}", code=Exit.USAGE)
        if key in found:
            raise CliError(f"-p {key} is given twice", code=Exit.USAGE)
        found[key] = json_or_text(value)
    return found


def json_or_text(text: str) -> Any:
    """The text as JSON, else as it is: 1 is a number, one is a text, and "1" in double quotes too."""
    try:
        # NaN and Infinity are no JSON, and the API server takes none.
        return json.loads(text, parse_constant=_no_constant)
    except ValueError:
        return text


def _no_constant(name: str) -> Any:
    raise ValueError(name)


def labels(texts: Sequence[str]) -> dict[str, str]:
    """Labels from `key=value`.

    Raises:
        CliError: there is no `=` or no key.
    """
    for text in texts:
        key, equals, _ = text.partition("=")
        if not equals or not key:
            raise CliError(f"expected --label key=value, found {text!r}", code=Exit.USAGE)
    return dict(text.split("=", 1) for text in texts)


def of_handler(handler: str, **spec: Any) -> dict[str, Any]:
    """A Task that runs a handler; its name will begin with the last part of the handler's.

    Args:
        handler: The handler.
        spec: Further fields of the specification; None and empty ones are left out.
    """
    given = {name: value for name, value in spec.items() if value not in (None, {}, [])}
    return {
        "apiVersion": API_VERSION,
        "kind": "Task",
        "metadata": {"generateName": prefix(handler.rpartition(".")[2] or handler)},
        "spec": {"handler": handler, **given},
    }


def prefix(text: str) -> str:
    """The beginning of a Kubernetes name from any text, with a dash at its end."""
    kept = "".join(each if each.isascii() and each.isalnum() else "-" for each in text.lower())[:_MAX_PREFIX]
    return (kept.strip("-") or "task") + "-"


def from_text(text: str, source: str) -> list[dict[str, Any]]:
    """The Tasks of a file of YAML or JSON documents, a `List` included.

    Raises:
        CliError: it cannot be read, has something else than Tasks, or nothing.
    """
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        documents = [each for each in yaml.load_all(text, loader) if each is not None]
    except yaml.YAMLError as error:
        raise CliError(f"{source} is no YAML", " ".join(str(error).split()), code=Exit.INVALID) from None
    flat = [inner for each in documents for inner in _items(each)]
    for number, each in enumerate(flat, 1):
        _check(each, f"{source}, document {number}" if len(flat) > 1 else source)
    if not flat:
        raise CliError(f"{source} has no Task", code=Exit.INVALID)
    return flat


def _items(document: Any) -> list[Any]:
    if isinstance(document, Mapping) and document.get("kind") == "List" and isinstance(document.get("items"), list):
        return list(document["items"])
    return [document]


def _check(found: Any, where: str) -> None:
    if not isinstance(found, Mapping):
        raise CliError(f"{where}: expected a Task, found {type(found).__name__}", code=Exit.INVALID)
    kind = (found.get("apiVersion"), found.get("kind"))
    if kind != (API_VERSION, "Task"):
        raise CliError(
            f"{where}: expected apiVersion {API_VERSION} and kind Task, found {kind[0]!s} and {kind[1]!s}",
            hint="submit creates Tasks only; for other kinds use: kubectl apply -f FILE",
            code=Exit.INVALID,
        )
    if not isinstance(found.get("spec"), Mapping):
        raise CliError(f"{where}: spec is missing", code=Exit.INVALID)
    metadata = found.get("metadata")
    if not isinstance(metadata, Mapping) or not (metadata.get("name") or metadata.get("generateName")):
        raise CliError(f"{where}: metadata.name or metadata.generateName is missing", code=Exit.INVALID)


def changed(
    task: Mapping[str, Any], *, name: str = "", more_labels: Mapping[str, str], kwargs: Mapping[str, Any], **spec: Any
) -> dict[str, Any]:
    """A Task with what was given beside its file; None leaves a field as it is."""
    metadata = {**task["metadata"]}
    if name:
        metadata.pop("generateName", None)
        metadata["name"] = name
    if more_labels:
        metadata["labels"] = {**(metadata.get("labels") or {}), **more_labels}
    given = {field: value for field, value in spec.items() if value not in (None, [])}
    new = {**task["spec"], **given}
    if isinstance(old := task["spec"].get("retryPolicy"), Mapping) and "retryPolicy" in given:
        new["retryPolicy"] = {**old, **given["retryPolicy"]}
    if kwargs:
        new["kwargs"] = {**(new.get("kwargs") or {}), **kwargs}
    return {**task, "metadata": metadata, "spec": new}


def retry_of(task: Mapping[str, Any], name: str = "") -> dict[str, Any]:
    """A new Task that repeats one that ended: the same specification and labels, neither suspended nor cancelled."""
    old = task["metadata"]
    metadata: dict[str, Any] = (
        {"name": name} if name else {"generateName": old["name"][:_MAX_PREFIX].rstrip(".-") + "-"}
    )
    if old.get("labels"):
        metadata["labels"] = dict(old["labels"])
    metadata["annotations"] = {RETRIED_FROM: old["uid"]}
    spec = {field: value for field, value in task["spec"].items() if field not in ("cancel", "suspend")}
    return {"apiVersion": API_VERSION, "kind": "Task", "metadata": metadata, "spec": spec}


def failed_items_of(task: Mapping[str, Any]) -> dict[str, Any]:
    """The `array` of a Task that runs only the items that failed in another one."""
    array = {field: value for field, value in task["spec"]["array"].items() if field != "indexes"}
    return {**array, "failedOf": task["metadata"]["uid"]}
