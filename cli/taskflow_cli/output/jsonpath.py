"""The JSONPath of kubectl, as far as people use it: text, fields, indexes, `[*]`, `..`-free filters, `range`."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from taskflow_cli.errors import CliError, Exit

_HELP = 'there are: .field, [\'field\'], [0], [*], [?(@.field=="text")], {range .items[*]}...{end}, {"text"}'
_STEP = re.compile(
    r"""
    \.(?P<name>(?:[^.\[\]\\'"\s{}]|\\.)+)        # .field, with \. for a dot within
    | \[\s*'(?P<quoted>[^']*)'\s*\]              # ['field']
    | \[\s*(?P<index>-?\d+)\s*\]                 # [0]
    | (?P<all>\[\s*\*\s*\])                      # [*]
    | \[\?\(\s*@(?P<path>[^=!<>()]*?)\s*(?:(?P<operator>==|!=|<=|>=|<|>)\s*(?P<value>"[^"]*"|'[^']*'|[^()]+?))?\s*\)\]
    """,
    re.VERBOSE,
)


@dataclass(frozen=True)
class _Text:
    text: str


@dataclass(frozen=True)
class _Path:
    steps: tuple[re.Match[str], ...]


@dataclass(frozen=True)
class _Range:
    path: _Path
    parts: tuple[Any, ...]


def render(template: str, value: Any) -> str:
    """The template with its expressions replaced by what they find in the value.

    Values of one expression are separated by spaces; what is no string or number is JSON. What is not there is empty.

    Raises:
        CliError: the template is invalid.
    """
    parts, rest = _parsed(_tokens(template), 0)
    if rest:
        raise _invalid(template, "{end} without {range}")
    return "".join(_rendered(parts, value))


def find(path: str, value: Any) -> list[Any]:
    """What one path finds, with or without its braces and its first dot.

    Raises:
        CliError: the path is invalid.
    """
    text = path.strip().removeprefix("{").removesuffix("}")
    return _found(_path(text if text[:1] in ".[$@" else f".{text}"), value)


def _tokens(template: str) -> list[_Text | str]:
    if "{" not in template:
        template = "{%s}" % (template if template[:1] in ".[$@" else f".{template}")
    tokens: list[_Text | str] = []
    for text, expression in re.findall(r"([^{]*)(?:\{((?:[^{}\"']|\"[^\"]*\"|'[^']*')*)\})?", template):
        if text:
            tokens.append(_Text(text))
        if expression.strip():
            tokens.append(expression.strip())
    if template.count("{") != template.count("}"):
        raise _invalid(template, "a brace is not closed")
    return tokens


def _parsed(tokens: Sequence[_Text | str], depth: int) -> tuple[list[Any], list[_Text | str]]:
    parts: list[Any] = []
    rest = list(tokens)
    while rest:
        each = rest.pop(0)
        if isinstance(each, _Text):
            parts.append(each)
        elif each == "end":
            if depth:
                return parts, rest
            return parts, [each, *rest]
        elif each.startswith("range "):
            inner, rest = _parsed(rest, depth + 1)
            parts.append(_Range(_path(each.removeprefix("range ").strip()), tuple(inner)))
        elif each[0] in "\"'":
            parts.append(_Text(_literal(each)))
        else:
            parts.append(_path(each))
    if depth:
        raise _invalid("{range}", "{end} is missing")
    return parts, []


def _literal(each: str) -> str:
    for escape, character in (("\\n", "\n"), ("\\t", "\t"), ('\\"', '"')):
        each = each.replace(escape, character)
    return each[1:-1]


def _path(text: str) -> _Path:
    rest = text[1:] if text[:1] in "$@" else text
    steps = []
    position = 0
    while position < len(rest):
        if rest[position:] == ".":
            break  # {.}: the value itself
        step = _STEP.match(rest, position)
        if step is None:
            raise _invalid(text, f"cannot read {rest[position:]!r}")
        if step["path"] is not None:
            _path(step["path"].strip())
            _wanted(step)
        steps.append(step)
        position = step.end()
    return _Path(tuple(steps))


def _rendered(parts: Sequence[Any], value: Any) -> list[str]:
    out: list[str] = []
    for part in parts:
        if isinstance(part, _Text):
            out.append(part.text)
        elif isinstance(part, _Range):
            for each in _found(part.path, value):
                out += _rendered(part.parts, each)
        else:
            out.append(" ".join(_printed(each) for each in _found(part, value)))
    return out


def _printed(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _found(path: _Path, value: Any) -> list[Any]:
    values = [value]
    for step in path.steps:
        values = [found for each in values for found in _step(step, each)]
    return values


def _step(step: re.Match[str], value: Any) -> list[Any]:
    if step["all"] or step["name"] == "*":
        return list(value.values()) if isinstance(value, dict) else list(value) if isinstance(value, list) else []
    if step["index"] is not None:
        index = int(step["index"])
        return [value[index]] if isinstance(value, list) and -len(value) <= index < len(value) else []
    if step["path"] is not None:
        items = value if isinstance(value, list) else []
        return [each for each in items if _holds(step, each)]
    name = step["quoted"] if step["quoted"] is not None else re.sub(r"\\(.)", r"\1", step["name"])
    return [value[name]] if isinstance(value, dict) and name in value else []


def _holds(step: re.Match[str], item: Any) -> bool:
    found = _found(_path(step["path"].strip()), item)
    if step["operator"] is None:
        return bool(found)
    wanted = _wanted(step)
    return any(_compares(each, step["operator"], wanted) for each in found)


def _wanted(step: re.Match[str]) -> Any:
    text = (step["value"] or "").strip()
    if not text or text[0] in "\"'":
        return text[1:-1]
    try:
        return json.loads(text)
    except ValueError:
        raise _invalid(text, "expected a number, true, false, or a text in quotes") from None


def _compares(left: Any, operator: str, right: Any) -> bool:
    if operator in {"==", "!="}:
        return bool((left == right) == (operator == "=="))
    try:
        below, equal = left < right, left == right
    except TypeError:
        return False
    return bool({"<": below, "<=": below or equal, ">": not below and not equal, ">=": not below}[operator])


def _invalid(template: str, why: str) -> CliError:
    return CliError(f"invalid JSONPath {template!r}", why, hint=_HELP, code=Exit.USAGE)
