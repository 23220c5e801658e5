"""What a JSON schema of the OpenAPI document allows, as HTML."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

_CODE = re.compile(r"`([^`]+)`")
_LIMITS = {
    "minimum": "at least",
    "exclusiveMinimum": "more than",
    "maximum": "at most",
    "exclusiveMaximum": "less than",
    "minLength": "characters, at least",
    "maxLength": "characters, at most",
    "minItems": "items, at least",
    "maxItems": "items, at most",
    "maxProperties": "entries, at most",
}


def code(text: str) -> str:
    """Text as it is to be typed."""
    return f"<code>{html.escape(text)}</code>"


def prose(text: str) -> str:
    """Paragraphs, in which backticks enclose what is to be typed."""
    return "".join(f"<p>{line(part)}</p>" for part in text.split("\n\n") if part.strip())


def line(text: str) -> str:
    """Text within a paragraph or a cell."""
    return _CODE.sub(r"<code>\1</code>", html.escape(text))


def table(heads: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """A table of cells that are HTML; nothing without rows."""
    if not rows:
        return ""
    head = "".join(f'<th scope="col">{each}</th>' for each in heads)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def type_of(schema: Mapping[str, Any]) -> str:
    """The type of a value, with links to the schemas that it names."""
    if "$ref" in schema:
        name = html.escape(str(schema["$ref"]).rpartition("/")[2])
        return f'<a href="#schema-{name}">{name}</a>'
    for choice in ("anyOf", "oneOf", "allOf"):
        if choice in schema:
            return " or ".join(dict.fromkeys(type_of(each) for each in schema[choice]))
    values = [schema["const"]] if "const" in schema else schema.get("enum", ())
    if values:
        return ", ".join(code(str(each)) for each in values)
    kind = schema.get("type", "any JSON")
    if kind == "array":
        return f"list of {type_of(schema.get('items', {}))}"
    if kind == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"map of {type_of(schema['additionalProperties'])}"
    return html.escape(f"{kind}, {schema['format']}" if "format" in schema else str(kind))


def limits_of(schema: Mapping[str, Any]) -> str:
    """Bounds, pattern and default of a value."""
    found = [
        f"{words} {each[name]:g}" if isinstance(each[name], float) else f"{words} {each[name]}"
        for each in (schema, *schema.get("anyOf", ()))
        for name, words in _LIMITS.items()
        if name in each
    ]
    found = [html.escape(each) for each in found]
    found += [f"pattern {code(each['pattern'])}" for each in (schema, *schema.get("anyOf", ())) if "pattern" in each]
    if schema.get("default") is not None:
        found.append(f"default {code(json.dumps(schema['default']))}")
    return f'<span class="limits">{"; ".join(found)}</span>' if found else ""


def fields_of(schema: Mapping[str, Any]) -> str:
    """The fields of an object."""
    required = schema.get("required", ())
    rows = [
        (
            code(name) + (" *" if name in required else ""),
            type_of(field),
            " ".join(filter(None, (line(field.get("description", "")), limits_of(field)))),
        )
        for name, field in schema.get("properties", {}).items()
    ]
    return table(("field", "type", ""), rows) or f"<p>{type_of(schema)}</p>"


def examples_of(schema: Mapping[str, Any]) -> str:
    """The examples of a schema, as JSON."""
    return "".join(f"<pre>{html.escape(json.dumps(each, indent=2))}</pre>" for each in schema.get("examples", ()))
