"""Generates files of charts/taskflow: values.yaml, values.schema.json, README.md, copies of CRDs and policies."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from chart_services import Model
from chart_values import Global, Values

ROOT = Path(__file__).resolve().parent.parent
CHART = ROOT / "charts" / "taskflow"
RBAC = ROOT / "local" / "taskflow_local" / "rbac.yaml"
RULES_HEAD = "# Written by `make gen` from local/taskflow_local/rbac.yaml, which the end-to-end tests also use.\n"
POLICIES_HEAD = "# Written by `make gen` from policies/"
HEAD = "# Written by `make gen` from tools/chart_values.py.\n"


def files() -> dict[Path, str]:
    """Content of each generated file."""
    schema = Values.model_json_schema(by_alias=True, mode="validation")
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema"} | _bare(schema)
    table = "| key | default | |\n|---|---|---|\n" + "\n".join(_rows(Values(), ""))
    introduction = (CHART / "README.in.md").read_text()
    found = {
        CHART / "values.yaml": HEAD + "\n".join(_lines(Values(), 0)) + "\n",
        CHART / "values.schema.json": json.dumps(schema, indent=2) + "\n",
        CHART / "files/rules.yaml": RULES_HEAD
        + yaml.safe_dump(_rules(), sort_keys=False, default_flow_style=None, width=200),
        CHART / "README.md": introduction.replace("VALUES", table),
    }
    found |= {
        CHART / "files/policies" / path.name: POLICIES_HEAD + path.name + ".\n" + _as_list(path.read_text())
        for path in (ROOT / "policies").glob("*.yaml")
    }
    return found | {CHART / "files/crds" / path.name: path.read_text() for path in (ROOT / "crds").glob("*.yaml")}


def _as_list(documents: str) -> str:
    """Helm reads no file of several documents."""
    return yaml.safe_dump(list(yaml.safe_load_all(documents)), sort_keys=False, width=1_000_000)


def _rules() -> dict[str, list[dict[str, Any]]]:
    """The cluster-wide rules of the components, without Leases: the chart grants those in one namespace."""
    roles = {
        role["metadata"]["name"]: role for role in yaml.safe_load_all(RBAC.read_text()) if role["kind"] == "ClusterRole"
    }
    return {
        component: [rule for rule in roles[f"taskflow-{component}"]["rules"] if rule["resources"] != ["leases"]]
        for component in ("operator", "api", "provisioner")
    }


def _bare(node: Any) -> Any:
    """The schema without titles, which only repeat names, and without defaults, which are in values.yaml."""
    if isinstance(node, dict):
        return {key: _bare(value) for key, value in node.items() if key == "properties" or key not in _NOISE} | (
            {"properties": {name: _bare(value) for name, value in node["properties"].items()}}
            if isinstance(node.get("properties"), dict)
            else {}
        )
    return [_bare(each) for each in node] if isinstance(node, list) else node


_NOISE = {"title", "default", "required"}
"""`required` is dropped too: Helm merges the user's values over the defaults before it validates."""


def _fields(model: BaseModel) -> Iterator[tuple[str, FieldInfo, Any]]:
    for name, field in type(model).model_fields.items():
        yield field.alias or name, field, getattr(model, name)


def _lines(model: BaseModel, depth: int) -> Iterator[str]:
    indent = "  " * depth
    for name, field, value in _fields(model):
        words = textwrap.wrap(field.description or "", 118 - len(indent))
        yield from (f"{indent}# {line}" for line in words)
        if isinstance(value, Model | Global):
            yield f"{indent}{name}:"
            yield from _lines(value, depth + 1)
        elif not isinstance(value, dict | list):
            yield f"{indent}{name}: {json.dumps(value)}"
        else:
            text = yaml.safe_dump({name: value}, sort_keys=False, default_flow_style=None, width=200).rstrip("\n")
            yield textwrap.indent(text, indent)


def _rows(model: BaseModel, prefix: str) -> Iterator[str]:
    for name, field, value in _fields(model):
        if isinstance(value, Model | Global):
            yield from _rows(value, f"{prefix}{name}.")
        else:
            words = (field.description or "").replace("|", "\\|")
            yield f"| `{prefix}{name}` | `{json.dumps(value)}` | {' '.join(words.split())} |"
