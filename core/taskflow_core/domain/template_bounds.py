"""How much of JSON Schema a TaskTemplate may use, so that the API server checks a Task in bounded time.

The admission policies in policies/ are generated with these bounds, and `taskflow-worker describe` keeps to them.
"""

from __future__ import annotations

import re

DEPTH = 3
"""Levels below kwargs."""
MOST_HANDLERS = 256
MOST_NAMES = 64
"""Properties, required properties, or values of an enum."""
MOST_PATTERN_CHARS = 256
MOST_PATTERN_COST = 2560
"""Of `pattern_cost`."""
TYPES = ("array", "boolean", "integer", "null", "number", "object", "string")
OF_NUMBERS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
OF_STRINGS = ("minLength", "maxLength", "pattern")
OF_ARRAYS = ("minItems", "maxItems", "items")
OF_OBJECTS = ("required", "properties", "additionalProperties")
# A group that is repeated, and before its end something that is: more than is nested, but all that is.
NESTED, TWICE_NESTED = r"(?s)\}.*\)\{", r"(?s)\}.*\)\{.*\)\{"
COUNTS = r"\{[0-9,]+\}"


def pattern_cost(pattern: str) -> int:
    """Length of a pattern times its largest `{n}`; times that again if such parts are within each other.

    It is an upper bound of the states of the regular expression: each character of a text may cost as many steps.
    """
    most = max([1, *(int(each) for counts in re.findall(COUNTS, pattern) for each in re.findall("[0-9]+", counts))])
    return len(pattern) * most * (most if re.search(NESTED, pattern) else 1)


def may_have_pattern(pattern: str) -> bool:
    """Whether a TaskTemplate may have the pattern, provided that RE2 knows it."""
    return (
        len(pattern) <= MOST_PATTERN_CHARS
        and pattern_cost(pattern) <= MOST_PATTERN_COST
        and not re.search(TWICE_NESTED, pattern)
    )
