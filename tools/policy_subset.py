"""The admission policy that refuses a TaskTemplate whose schemas use more than Tasks are checked for.

Schemas are walked level by level, as values are in `policy_arguments`. A node is a schema `s` with its path `p`.
"""

from __future__ import annotations

import json
from typing import Any

from cel import in_order, let, nested, quoted
from policy_keywords import ANNOTATIONS, ARRAYS, FEW, NUMBERS, STRINGS
from policy_objects import CUT, policy, rule, variable
from taskflow_core.domain.template_bounds import (
    COUNTS,
    DEPTH,
    MOST_NAMES,
    MOST_PATTERN_CHARS,
    MOST_PATTERN_COST,
    NESTED,
    TWICE_NESTED,
    TYPES,
)

MOST_SCHEMAS = 2048
"""Schemas of one level in a TaskTemplate."""
_COUNTS = [name for name in (*STRINGS, *ARRAYS) if name != "pattern"]
_SCALAR = "(type(x) == string || type(x) == int || type(x) == double || type(x) == bool || x == null)"
_VALUE = "n.s[k]"
_NESTED, _TWICE_NESTED = f"r'{NESTED}'", f"r'{TWICE_NESTED}'"


def templates() -> list[dict[str, Any]]:
    """The policy and its binding."""
    valid = [
        nested(f"variables.t{level}", level, "all", "!has(n.s.pattern) || (''.matches(n.s.pattern) ? true : true)")
        for level in range(DEPTH + 1)
    ]
    spec = {
        "failurePolicy": "Fail",
        "matchConstraints": rule("tasktemplates", "CREATE", "UPDATE"),
        "variables": _variables(),
        "validations": [
            {
                "expression": "size(variables.wrong) == 0",
                "messageExpression": "variables.message",
                "message": "the TaskTemplate uses what is not checked when a Task is created",
                "reason": "Invalid",
            },
            # An error of evaluation refuses the object, and says what is wrong with the pattern.
            *({"expression": each} for each in valid),
        ],
    }
    return policy("Validating", "taskflow-templates", spec, {"validationActions": ["Deny"]})


def _variables() -> list[dict[str, str]]:
    first = (
        "object.spec.handlers.filter(h, has(h.kwargs)).map(h, "
        "{'s': dyn(h.kwargs), 'p': dyn('spec.handlers[' + h.name + '].kwargs')})"
    )
    has_properties = "(type(n.s) == map && 'properties' in n.s && type(n.s.properties) == map)"
    has_items = "(type(n.s) == map && 'items' in n.s)"
    child = "{'s': dyn(n.s.properties[k]), 'p': dyn(n.p + '.properties.' + k)}"
    item = "{'s': dyn(n.s.items), 'p': dyn(n.p + '.items')}"
    below = f"({has_properties} ? n.s.properties.map(k, {child}) : []) + ({has_items} ? [{item}] : [])"
    width = f"({has_properties} ? size(n.s.properties) : 0) + ({has_items} ? 1 : 0)"
    found, errors = [variable("t0", first)], []
    for level in range(DEPTH + 1):
        nodes = f"variables.t{level}"
        errors.append(nested(nodes, level, "map", f"({_outside(level)}).join('\\n')", ".join('\\n')"))
        if level < DEPTH:
            total = f"variables.size{level + 1}"
            found.append(variable(f"size{level + 1}", nested(nodes, level, "map", width, ".sum()")))
            found.append(
                variable(f"t{level + 1}", f"{total} <= {MOST_SCHEMAS} ? {nested(nodes, level, 'map', below)} : []")
            )
    sizes = " || ".join(f"variables.size{level + 1} > {MOST_SCHEMAS}" for level in range(DEPTH))
    too_many = (
        f"({sizes} ? ['spec.handlers: more than {MOST_SCHEMAS} schemas at one level; make several TaskTemplates'] : [])"
    )
    lines = f"[{', '.join(errors)}].join('\\n').split('\\n').filter(e, e != '') + {too_many}"
    ordered = in_order("variables.wrong", json.dumps(list(range(2 * FEW))))
    text = f"(size(variables.wrong) > {2 * FEW} ? variables.wrong : {ordered}).join('; ')"
    whole = f"'not of the subset that is checked when a Task is created: ' + {text}"
    return [*found, variable("wrong", lines), variable("whole", whole), variable("message", CUT)]


def _outside(level: int) -> str:
    """A list of what is wrong with the schema of node n, apart from what is inside of it."""
    deepest = level == DEPTH
    text = f"k in {json.dumps(ANNOTATIONS)}"
    for name, right in _rights(deepest=deepest).items():
        text = f"k == {quoted(name)} ? ({right}) : {text}"
    words = "{" + ", ".join(f"{quoted(key)}: {quoted(each)}" for key, each in _expected(deepest=deepest).items()) + "}"
    wrong = f"n.s.filter(k, !({text})).map(k, n.p + '.' + k + ' ' + (k in {words} ? {words}[k] : 'is not known'))"
    top = "!('type' in n.s) || n.s.type != 'object' ? [n.p + '.type must be object'] : " if level == 0 else ""
    return f"type(n.s) != map ? [n.p + ' must be an object'] : {top}{wrong}"


def _rights(*, deepest: bool) -> dict[str, str]:
    """Of a keyword: what its value, `n.s[k]`, meets."""
    types = json.dumps(TYPES)
    names = f"type({_VALUE}) == list && size({_VALUE}) <= {MOST_NAMES}"
    pattern = f"type({_VALUE}) == string && size({_VALUE}) <= {MOST_PATTERN_CHARS}"
    return {
        "type": f"type({_VALUE}) == list ? size({_VALUE}) > 0 && {_VALUE}.all(t, t in {types}) : {_VALUE} in {types}",
        "enum": f"{names} && size({_VALUE}) > 0 && {_VALUE}.all(x, {_SCALAR})",
        **dict.fromkeys(NUMBERS, f"type({_VALUE}) == int || type({_VALUE}) == double"),
        **dict.fromkeys(_COUNTS, f"type({_VALUE}) == int && {_VALUE} >= 0"),
        "pattern": f"{pattern} && {_cost(_VALUE)} <= {MOST_PATTERN_COST} && !{_VALUE}.matches({_TWICE_NESTED})",
        "required": f"{names} && {_VALUE}.all(x, type(x) == string)",
        "properties": "false" if deepest else f"type({_VALUE}) == map && size({_VALUE}) <= {MOST_NAMES}",
        "items": "false" if deepest else f"type({_VALUE}) == map",
        "additionalProperties": f"type({_VALUE}) == bool",
    }


def _expected(*, deepest: bool) -> dict[str, str]:
    """Of a keyword: what to say of a wrong value."""
    deeper = f"is deeper than {DEPTH} levels"
    pattern = (
        f"must be a regular expression of at most {MOST_PATTERN_CHARS} characters, and its length times its largest "
        f"{{n}} at most {MOST_PATTERN_COST}"
    )
    return {
        "type": f"must be one of {', '.join(TYPES)}, or a list of them",
        "enum": f"must be a list of 1 to {MOST_NAMES} strings, numbers, booleans or nulls",
        **dict.fromkeys(NUMBERS, "must be a number"),
        **dict.fromkeys(_COUNTS, "must be a whole number that is not negative"),
        "pattern": pattern,
        "required": f"must be a list of at most {MOST_NAMES} names",
        "properties": deeper if deepest else f"must be an object of at most {MOST_NAMES} schemas",
        "items": deeper if deepest else "must be one schema",
        "additionalProperties": "must be true or false",
    }


def _cost(pattern: str) -> str:
    """CEL: as `pattern_cost`."""
    counts = f"{pattern}.findAll(r'{COUNTS}').join(' ').findAll('[0-9]+').map(c, int(c))"
    return let("most", f"([1] + {counts}).max()", f"size({pattern}) * most * ({pattern}.matches({_NESTED}) ? most : 1)")
