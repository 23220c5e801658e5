"""The admission policy that refuses a Task whose arguments do not fit a TaskTemplate.

CEL has no recursion, so a value is checked level by level: kwargs, what is in it, and so on, `DEPTH` levels down. A
node has a schema `s`, the value `v` that the schema is for, and the value's JSON type `w`. The nodes of a level are the
variable `fLEVEL`, as lists in lists, because CEL has no `flatten`. A level of more than `WIDTH` nodes is not
checked, which bounds the time that a create takes: what is wrong there ends as InvalidArguments in the worker.

A check has a condition, which each Task pays for, and words. The words, and the paths `p` in them, are made only for a
Task that is refused.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from cel import in_order, let, nested, quoted
from policy_keywords import (
    ARRAY_FOUND,
    ARRAYS,
    FEW,
    NUMBER_FOUND,
    NUMBERS,
    STRING_FOUND,
    STRINGS,
    WIDTH,
)
from policy_objects import CUT, HANDLER, POSITIONAL, of_tasks, policy, variable
from taskflow_core.domain.template_bounds import DEPTH

CRD = Path(__file__).resolve().parent.parent / "crds" / "tasks.taskflow.dev.yaml"
FREE = ("handler", "kwargs", "cancel", "suspend")
"""Fields of a Task that `allow` does not restrict."""
_TYPES_OF = "(type(n.s.type) == list ? n.s.type : [n.s.type])"
_HAS_TYPE = f"{_TYPES_OF}.exists(t, t == n.w || (t == 'number' && n.w == 'integer'))"
_CLOSED = "(has(n.s.additionalProperties) && n.s.additionalProperties == false)"
_KNOWN = "(has(n.s.properties) ? n.s.properties : dyn({}))"


def arguments() -> list[dict[str, Any]]:
    """Refuses a Task that does not fit a TaskTemplate of its namespace."""
    correct = [nested(f"variables.f{level}", level, "all", _correct(top=level == 0)) for level in range(DEPTH + 1)]
    # Without the CRD, or before it is looked up after a start, the policy cannot say anything: then Tasks pass.
    spec = of_tasks("has(h.kwargs) || has(h.allow)", failure="Ignore") | {
        "variables": [*_values(), _allowed(), *_words()],
        "validations": [
            {
                "expression": " && ".join([*correct, "size(variables.notAllowed) == 0"]),
                "messageExpression": "variables.message",
                "message": "the arguments do not fit the TaskTemplate of the handler",
                "reason": "Invalid",
            }
        ],
    }
    return policy("Validating", "taskflow-arguments", spec, {"validationActions": ["Deny"]})


def _node(schema: str, value: str, path: str) -> str:
    word = (
        f"type({value}) == string ? 'string' : type({value}) == int ? 'integer' : type({value}) == bool ? 'boolean' : "
        f"type({value}) == list ? 'array' : type({value}) == map ? 'object' : {value} == null ? 'null' : "
        # A double beyond 2^53 is a whole number, and may not fit an int.
        f"{value} > 9e15 || {value} < -9e15 || double(int({value})) == {value} ? 'integer' : 'number'"
    )
    with_path = f", 'p': dyn({path})" if path else ""
    return f"{{'s': dyn({schema}), 'v': dyn({value}), 'w': dyn({word}){with_path}}}"


_IS_OBJECT, _IS_ARRAY = "n.w == 'object' && has(n.s.properties)", "n.w == 'array' && has(n.s.items)"


def _values() -> list[dict[str, str]]:
    """The variables with the nodes of each level."""
    found = [
        variable("handler", HANDLER),
        variable("kwargs", "has(object.spec.kwargs) ? dyn(object.spec.kwargs) : dyn({})"),
        variable("positional", POSITIONAL),
        variable("f0", f"has(variables.handler.kwargs) ? [{_node(*_TOP, '')}] : []"),
    ]
    below = f"n.v.filter(k, k in n.s.properties).map(k, {_node('n.s.properties[k]', 'n.v[k]', '')})"
    children = f"{_IS_OBJECT} ? {below} : {_IS_ARRAY} ? n.v.map(e, {_node('n.s.items', 'e', '')}) : []"
    width = f"{_IS_OBJECT} || {_IS_ARRAY} ? size(n.v) : 0"
    for level in range(DEPTH):
        nodes = f"variables.f{level}"
        total = nested(nodes, level, "map", width, ".sum()")
        found.append(variable(f"few{level + 1}", f"{total} <= {WIDTH}"))
        found.append(
            variable(f"f{level + 1}", f"variables.few{level + 1} ? {nested(nodes, level, 'map', children)} : []")
        )
    chars = "n.w == 'string' && has(n.s.pattern) ? size(n.v) : 0"
    totals = [nested(f"variables.f{level}", level, "map", chars, ".sum()") for level in range(DEPTH + 1)]
    found.append(variable("patternChars", " + ".join(totals)))
    return found


_TOP = "variables.handler.kwargs", "variables.kwargs"


def _paths() -> list[dict[str, str]]:
    """The variables with the nodes of each level, `gLEVEL`, which have their paths."""
    found = [
        variable("numbers", json.dumps(list(range(WIDTH)))),
        variable("g0", f"has(variables.handler.kwargs) ? [{_node(*_TOP, quoted('spec.kwargs'))}] : []"),
    ]
    below = _node("n.s.properties[k]", "n.v[k]", "n.p + '.' + k")
    item = _node("n.s.items", "n.v[i]", "n.p + '[' + string(i) + ']'")
    children = (
        f"{_IS_OBJECT} ? n.v.filter(k, k in n.s.properties).map(k, {below}) : "
        f"{_IS_ARRAY} ? variables.numbers.filter(i, i < size(n.v)).map(i, {item}) : []"
    )
    for level in range(DEPTH):
        nodes = nested(f"variables.g{level}", level, "map", children)
        found.append(variable(f"g{level + 1}", f"variables.few{level + 1} ? {nodes} : []"))
    return found


def _correct(*, top: bool) -> str:
    """Whether the value of node n fits its schema, apart from what is inside of it."""

    def each(checks: dict[str, tuple[str, str]]) -> str:
        return " && ".join(f"(!has(n.s.{name}) || ({condition}))" for name, (condition, _) in checks.items())

    required = f"({'variables.positional || ' if top else ''}!has(n.s.required) || n.s.required.all(r, r in n.v))"
    # The sizes first: an object with very many keys is not walked through.
    closed = f"(!{_CLOSED} || (size(n.v) <= size({_KNOWN}) && n.v.all(k, k in {_KNOWN})))"
    return (
        f"(!has(n.s.type) || {_HAS_TYPE}) && (!has(n.s.enum) || n.v in n.s.enum) && "
        f"(n.w == 'string' ? {each(STRINGS)} : n.w == 'integer' || n.w == 'number' ? {each(NUMBERS)} : "
        f"n.w == 'array' ? {each(ARRAYS)} : n.w == 'object' ? {required} && {closed} : true)"
    )


def _errors(*, top: bool) -> str:
    """A list of what is wrong with node n, apart from what is inside of it."""

    def each(checks: dict[str, tuple[str, str]], found: str) -> str:
        parts = [
            f"(has(n.s.{name}) && !({condition}) ? ['must ' + {words}] : [])"
            for name, (condition, words) in checks.items()
        ]
        return f"({' + '.join(parts)}).map(m, n.p + ': ' + m + ', found ' + {found})"

    skip = "variables.positional || " if top else ""
    required = (
        f"({skip}!has(n.s.required) ? [] : n.s.required.filter(r, !(r in n.v)).map(r, n.p + '.' + r + ': is required'))"
    )
    names = f"(size(known) > {FEW} ? [string(size(known)) + ' others'] : {in_order('known', 'variables.numbers')})"
    unknown = "n.v.filter(k, !(k in known)).map(k, n.p + '.' + k + ': is unknown, expected ' + names)"
    listed = f"(size(known) == 0 ? 'none' : 'one of ' + {names}.join(', '))"
    closed = (
        f"(!{_CLOSED} ? [] : size(n.v) > {WIDTH} ? [n.p + ': must have at most ' + string(size({_KNOWN})) + "
        f"' entries, found ' + string(size(n.v))] : {let('known', _KNOWN, let('names', listed, unknown))})"
    )
    allowed = "n.s.enum.map(x, x == null ? 'null' : string(x)).join(', ')"
    found = f"(n.w == 'string' ? {STRING_FOUND} : n.w in ['integer', 'number', 'boolean'] ? string(n.v) : n.w)"
    return (
        f"has(n.s.type) && !{_HAS_TYPE} ? [n.p + ': expected ' + {_TYPES_OF}.join(' or ') + ', found ' + n.w] : "
        f"has(n.s.enum) && !(n.v in n.s.enum) ? [n.p + ': must be one of ' + {allowed} + ', found ' + {found}] : "
        f"n.w == 'string' ? {each(STRINGS, STRING_FOUND)} : "
        f"n.w == 'integer' || n.w == 'number' ? {each(NUMBERS, NUMBER_FOUND)} : "
        f"n.w == 'array' ? {each(ARRAYS, ARRAY_FOUND)} : n.w == 'object' ? {required} + {closed} : []"
    )


def _words() -> list[dict[str, str]]:
    """The variables with the message, which are computed only for a Task that is refused."""
    levels = [
        variable(
            f"e{level}",
            nested(f"variables.g{level}", level, "map", f"({_errors(top=level == 0)}).join('\\n')", ".join('\\n')"),
        )
        for level in range(DEPTH + 1)
    ]
    parts = ", ".join(f"variables.{each['name']}" for each in levels)
    lines = f"([{parts}].join('\\n').split('\\n') + variables.notAllowed).filter(e, e != '')"
    ordered = in_order("variables.errors", "variables.numbers")
    text = f"(size(variables.errors) > {FEW * 2} ? variables.errors : {ordered}).join('; ')"
    whole = "'TaskTemplate ' + params.metadata.name + ' refuses handler ' + object.spec.handler + ': ' + variables.text"
    return [
        *_paths(),
        *levels,
        variable("errors", lines),
        variable("text", text),
        variable("whole", whole),
        variable("message", CUT),
    ]


def _allowed() -> dict[str, str]:
    """The variable with an error for each field of a Task that is set although `allow` has it not."""
    crd = yaml.safe_load(CRD.read_text())
    properties = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    # Admission sees the defaults of the CRD as if somebody had set them.
    unset = [
        f"(f == {quoted(name)} && object.spec.{name} == {_literal(each['default'])})"
        for name, each in properties.items()
        if "default" in each and name not in FREE
    ]
    from_template = (
        "(has(variables.handler.defaults) && f in variables.handler.defaults && "
        "variables.handler.defaults[f] == object.spec[f])"
    )
    fine = " || ".join([f"f in {json.dumps(FREE)}", "f in variables.handler.allow", *unset, from_template])
    words = (
        "'spec.' + f + ': must not be set, expected ' + (size(variables.handler.allow) == 0 ? 'only kwargs' : "
        "'only ' + variables.handler.allow.join(', '))"
    )
    return variable(
        "notAllowed", f"has(variables.handler.allow) ? object.spec.filter(f, !({fine})).map(f, {words}) : []"
    )


def _literal(value: Any) -> str:
    """JSON as CEL; the values of a map are of any type."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)}: dyn({_literal(each)})" for key, each in value.items()) + "}"
    return json.dumps(value)
