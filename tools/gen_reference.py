"""docs/reference/{task,workerpool}.md, from the CRDs."""

from __future__ import annotations

import ast
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from taskflow_core.domain.phases import Reason

ROOT = Path(__file__).resolve().parent.parent
KINDS = {"task": "tasks.taskflow.dev", "workerpool": "workerpools.taskflow.dev"}
BOUNDS = (
    ("minimum", ">="),
    ("maximum", "<="),
    ("minLength", "length >="),
    ("maxLength", "length <="),
    ("minItems", "items >="),
    ("maxItems", "items <="),
    ("maxProperties", "entries <="),
)


def fields(schema: dict[str, Any], prefix: str) -> Iterator[tuple[str, dict[str, Any], bool]]:
    """Each field below a schema in the order of the CRD: its path, its own schema, whether it is required."""
    required = set(schema.get("required", ()))
    for name, child in (schema.get("properties") or {}).items():
        path = f"{prefix}.{name}"
        yield path, child, name in required
        inner = child.get("items", child)
        suffix = "[]" if "items" in child else ""
        yield from fields(inner, path + suffix)


def row(path: str, schema: dict[str, Any], *, required: bool) -> str:
    """One line of the table."""
    kind: str = "time" if schema.get("format") == "date-time" else schema.get("type", "any JSON")
    if schema.get("type") == "array":
        kind = f"list of {schema['items'].get('type', 'any JSON')}"
    bounds = [f"{sign} {schema[key]}" for key, sign in BOUNDS if key in schema]
    if "enum" in schema:
        bounds.append("one of " + ", ".join(schema["enum"]))
    if "pattern" in schema:
        bounds.append(f"`{schema['pattern']}`")
    default = "required" if required else _shown(schema["default"]) if "default" in schema else ""
    cells = (f"`{path}`", kind, default, "; ".join(bounds), " ".join(schema.get("description", "").split()))
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def pages() -> dict[str, str]:
    """The page of each kind, by its name."""
    return {page: _page(yaml.safe_load((ROOT / "crds" / f"{crd}.yaml").read_text())) for page, crd in KINDS.items()}


def _page(crd: dict[str, Any]) -> str:
    version = crd["spec"]["versions"][0]
    schema = version["schema"]["openAPIV3Schema"]
    names = crd["spec"]["names"]
    lines = [
        f"# {names['kind']}",
        "",
        f"`{crd['spec']['group']}/{version['name']}`, short name `{names['shortNames'][0]}`. {schema['description']}",
        "",
        f"Written by `make gen` from [{crd['metadata']['name']}.yaml](../../crds/{crd['metadata']['name']}.yaml).",
    ]
    for part in ("spec", "status"):
        lines += ["", f"## {part}", "", " ".join(schema["properties"][part]["description"].split()), ""]
        lines += ["| field | type | default | bounds | |", "|---|---|---|---|---|"]
        lines += [row(path, child, required=req) for path, child, req in fields(schema["properties"][part], part)]
    rules = schema["properties"]["spec"].get("x-kubernetes-validations", ())
    if rules:
        lines += ["", "## Rules", "", *(f"- {rule['message']}" for rule in rules)]
    if names["kind"] == "Task":
        lines += [
            "",
            "## Reasons",
            "",
            "The closed list of `status.reason`, condition reasons and `lastError.reason`.",
            "",
        ]
        lines += ["| reason | |", "|---|---|", *(f"| `{reason.value}` | {text} |" for reason, text in reasons())]
    return "\n".join(lines) + "\n"


def reasons() -> Iterator[tuple[Reason, str]]:
    """Each reason with the docstring below it in the source."""
    source = ast.parse((ROOT / "core/taskflow_core/domain/phases.py").read_text())
    [body] = [node.body for node in source.body if isinstance(node, ast.ClassDef) and node.name == "Reason"]
    for statement, docstring in itertools.pairwise(body):
        match statement, docstring:
            case ast.Assign(value=ast.Constant(value=value)), ast.Expr(value=ast.Constant(value=str() as text)):
                yield Reason(value), " ".join(text.split())


def _shown(value: Any) -> str:
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"
