"""From any JSON Schema to the subset that a TaskTemplate may use.

What the subset cannot say is left out, so a narrowed schema admits all that the whole one admits, and maybe more: the
worker refuses the rest as InvalidArguments.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from taskflow_core.domain import template_bounds as bounds

Schema = dict[str, Any]
_MOST_INTEGER = 2**63 - 1
_WITH_SCHEMAS = ("properties", "items", "additionalProperties", "anyOf", "oneOf")
_IGNORED = ("title", "examples", "discriminator", "deprecated", "readOnly", "writeOnly")
"""Keywords that check nothing, and are no loss."""
_OF_TYPE = {
    "number": bounds.OF_NUMBERS,
    "integer": bounds.OF_NUMBERS,
    "string": bounds.OF_STRINGS,
    "array": bounds.OF_ARRAYS,
    "object": bounds.OF_OBJECTS,
}
# Rust's classes know all of Unicode and those of RE2 know ASCII; only digits have a name in both.
_DIFFERENT = re.compile(r"\\[wWsSbB]|\\[AzZ<>]|\(\?(?!:|P<)|&&|--|~~")


@dataclass
class Narrowed:
    """A schema of the subset."""

    schema: Schema
    left_out: list[str] = field(default_factory=list)
    """What it does not say: `PATH: KEYWORD`."""


def narrow(schema: Mapping[str, Any], path: str, depth: int = 0) -> Narrowed:
    """Narrow a schema.

    Args:
        schema: any JSON Schema, with its `$defs`.
        path: where it is, for `left_out`.
        depth: levels above it.
    """
    result = Narrowed({})
    result.schema = _Narrowing(result, {}).narrowed(schema, path, depth)
    return result


@dataclass
class _Narrowing:
    result: Narrowed
    definitions: Mapping[str, Any]

    def narrowed(self, schema: Mapping[str, Any], path: str, depth: int) -> Schema:
        """One schema and what is inside of it."""
        if "$defs" in schema:
            inside = {key: value for key, value in schema.items() if key != "$defs"}
            return _Narrowing(self.result, schema["$defs"]).narrowed(inside, path, depth)
        schema = self._resolved(schema)
        found = self._alone(schema, path)
        self._add_properties(found, schema, path, depth)
        if isinstance(items := schema.get("items"), Mapping):
            if depth < bounds.DEPTH:
                found["items"] = self.narrowed(items, f"{path}[]", depth + 1)
            elif items:
                self._leave_out(path, "items", f"deeper than {bounds.DEPTH} levels")
        for keyword in ("anyOf", "oneOf"):
            if keyword in schema:
                found |= self._joined(schema[keyword], path, depth, keyword)
        return found

    def _alone(self, schema: Mapping[str, Any], path: str) -> Schema:
        """The keywords that have no schemas inside."""
        found: Schema = {}
        for keyword, value in schema.items():
            # kubectl cannot apply a null.
            if keyword in (*_IGNORED, *_WITH_SCHEMAS) or (keyword == "default" and value is None):
                continue
            if keyword == "const" and _is_scalar(value):
                found["enum"] = [value]
            elif (kept := _kept(keyword, value)) is not None:
                found[keyword] = kept
            else:
                self._leave_out(path, keyword, value)
        return found

    def _resolved(self, schema: Mapping[str, Any]) -> Mapping[str, Any]:
        # A definition that names only itself ends as any value.
        for _ in range(len(self.definitions) + 1):
            if "$ref" not in schema:
                return schema
            name = str(schema["$ref"]).removeprefix("#/$defs/")
            beside = {key: value for key, value in schema.items() if key != "$ref"}
            schema = {**self.definitions.get(name, {}), **beside}
        return {}

    def _add_properties(self, found: Schema, schema: Mapping[str, Any], path: str, depth: int) -> None:
        properties = schema.get("properties", {})
        closed = schema.get("additionalProperties")
        if isinstance(closed, Mapping) and closed:
            self._leave_out(path, "additionalProperties", "of one schema")
        if len(properties) > bounds.MOST_NAMES or (properties and depth == bounds.DEPTH):
            why = f"deeper than {bounds.DEPTH} levels" if depth == bounds.DEPTH else f"more than {bounds.MOST_NAMES}"
            self._leave_out(path, "properties", why)
            return
        if properties:
            found["properties"] = {
                name: self.narrowed(each, f"{path}.{name}", depth + 1) for name, each in properties.items()
            }
        if closed is False:
            found["additionalProperties"] = False

    def _joined(self, branches: Sequence[Mapping[str, Any]], path: str, depth: int, keyword: str) -> Schema:
        """One schema that admits what any of the branches admits."""
        narrowed = [self.narrowed(each, path, depth) for each in branches]
        types = [_types(each) for each in narrowed]
        if not all(types):
            self._leave_out(path, keyword, "without a type")
            return {}
        names = [name for each in types for name in each]
        joined: Schema = {"type": names[0] if len(set(names)) == 1 else list(dict.fromkeys(names))}
        distinct = len(set(names)) == len(names) and not {"integer", "number"} <= set(names)
        for each in narrowed if distinct else ():
            # Keywords of one type have no effect on values of the others.
            own = {key for name in _types(each) for key in _OF_TYPE.get(name, ())}
            joined |= {key: value for key, value in each.items() if key in own}
        if not distinct:
            self._leave_out(path, keyword, "of values of one type")
        if any("enum" in each for each in narrowed):
            self._join_enums(joined, narrowed, path)
        return joined

    def _join_enums(self, joined: Schema, narrowed: Sequence[Schema], path: str) -> None:
        values = [each.get("enum", [None] if _types(each) == ["null"] else None) for each in narrowed]
        if all(each is not None for each in values):
            joined["enum"] = [value for each in values for value in each or ()]
        else:
            self._leave_out(path, "enum", "of some of several types")

    def _leave_out(self, path: str, keyword: str, value: Any) -> None:
        shown = value if isinstance(value, str | int | float) and not isinstance(value, bool) else ""
        line = f"{path}: {keyword} {shown}".rstrip()
        if line not in self.result.left_out:
            self.result.left_out.append(line)


def _types(schema: Schema) -> list[str]:
    found = schema.get("type", [])
    if not found and "enum" in schema:
        return sorted({_type_of(value) for value in schema["enum"]})
    return [found] if isinstance(found, str) else list(found)


def _type_of(value: Any) -> str:
    names = {bool: "boolean", int: "integer", float: "number", str: "string"}
    return names.get(type(value), "null")


def _is_scalar(value: Any) -> bool:
    return value is None or isinstance(value, bool | float | str) or _fits(value)


def _fits(value: Any) -> bool:
    return isinstance(value, int) and abs(value) <= _MOST_INTEGER


def _kept(keyword: str, value: Any) -> Any:
    """The value of a keyword, or None if the subset cannot say it."""
    kept = False
    match keyword:
        case "type" | "description" | "default":
            kept = True
        case "enum":
            kept = 0 < len(value) <= bounds.MOST_NAMES and all(map(_is_scalar, value))
        case "pattern":
            value = value.replace(r"\d", r"\p{Nd}").replace(r"\D", r"\P{Nd}")
            kept = not _DIFFERENT.search(value) and bounds.may_have_pattern(value)
        case "required":
            kept = len(value) <= bounds.MOST_NAMES
        case "minLength" | "maxLength" | "minItems" | "maxItems":
            kept = _fits(value)
        case _:
            kept = keyword in bounds.OF_NUMBERS and (isinstance(value, float) or _fits(value))
    return value if kept else None


def lines_of(left_out: Sequence[str]) -> Iterator[str]:
    """The comment that says what is left out."""
    if left_out:
        yield "Checked by the worker only:"
        yield from (f"  {line}" for line in left_out)
