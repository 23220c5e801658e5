"""The formats of `-o`: table, wide, name, json, yaml, jsonpath=TEMPLATE."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from taskflow_cli.errors import CliError, Exit
from taskflow_cli.output import jsonpath

NAMES = ("table", "wide", "name", "json", "yaml", "jsonpath")


@dataclass(frozen=True)
class Format:
    """A parsed `-o`."""

    name: str = "table"
    template: str = ""

    @property
    def for_people(self) -> bool:
        """A table, which may change between versions."""
        return self.name in {"table", "wide"}


def parse(text: str) -> Format:
    """Read the value of `-o`.

    Raises:
        CliError: there is no such format.
    """
    name, equals, template = text.partition("=")
    if name not in NAMES or bool(equals) != (name == "jsonpath"):
        known = ", ".join(NAMES[:-1])
        raise CliError(f"expected -o {known} or jsonpath=TEMPLATE, found {text!r}", code=Exit.USAGE)
    if template:
        jsonpath.render(template, None)
    return Format(name, template)


def listed(items: Sequence[Any]) -> dict[str, Any]:
    """Several objects as one, as kubectl does."""
    return {"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": ""}, "items": list(items)}


def document(value: Any, form: Format) -> str:
    """A value in a format for programs."""
    if form.name == "json":
        return json.dumps(value, indent=4, ensure_ascii=False) + "\n"
    if form.name == "yaml":
        return yaml_of(value)
    return jsonpath.render(form.template, value) + "\n"


def yaml_of(value: Any) -> str:
    """A value as YAML."""
    import yaml  # noqa: PLC0415 - not every command prints it

    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    text: str = yaml.dump(value, Dumper=dumper, sort_keys=False, allow_unicode=True, width=120)
    return text
