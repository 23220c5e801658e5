"""Writes docs/reference/{task,workerpool}.md from the CRDs. With --check it writes nothing and fails on a difference."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from taskflow_core.domain.phases import Reason

ROOT = Path(__file__).resolve().parent.parent
PAGES = {"tasks.taskflow.dev": "task", "workerpools.taskflow.dev": "workerpool"}
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


def page(crd: dict[str, Any]) -> str:
    """The reference of one kind."""
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
    """Each reason with the sentence below it in the source."""
    source = (ROOT / "core/taskflow_core/domain/phases.py").read_text()
    lines = source[source.index("class Reason") :].splitlines()
    for reason in Reason:
        at = next(number for number, line in enumerate(lines) if line.strip().startswith(f'{reason.name} = "{reason}"'))
        yield reason, lines[at + 1].strip().strip('"')


def main() -> int:
    """Write or check both pages."""
    stale: list[str] = []
    for name, title in PAGES.items():
        text = page(yaml.safe_load((ROOT / "crds" / f"{name}.yaml").read_text()))
        path = ROOT / "docs" / "reference" / f"{title}.md"
        if "--check" in sys.argv[1:]:
            if not path.exists() or path.read_text() != text:
                stale.append(str(path.relative_to(ROOT)))
        else:
            path.write_text(text)
    print(*(f"{name} is not what the CRD says; run make gen" for name in stale), sep="\n", end="\n" if stale else "")
    return 1 if stale else 0


def _shown(value: Any) -> str:
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


if __name__ == "__main__":
    sys.exit(main())
