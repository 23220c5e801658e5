"""What the admission policies of policies/ check of a value, by keyword of JSON Schema, and what bounds them."""

from __future__ import annotations

WIDTH = 128
"""Nodes of a level."""
PATTERN_CHARS = 2048
"""Characters of all strings that have a pattern. If there are more, none is held against its pattern."""
MESSAGE_BYTES = 4096
"""The API server throws away a message of more than 5 KiB."""
FEW = 16
"""How many names or errors a message puts in order."""
HANDLER = "params.spec.handlers.filter(h, h.name == object.spec.handler)[0]"
# An argument may stand at its position, and an array passes its items so.
POSITIONAL = "(has(object.spec.args) && size(object.spec.args) > 0) || has(object.spec.array)"

# Of a keyword: what a right value meets, and what it must be.
NUMBERS = {
    "minimum": ("n.v >= n.s.minimum", "'be at least ' + string(n.s.minimum)"),
    "maximum": ("n.v <= n.s.maximum", "'be at most ' + string(n.s.maximum)"),
    "exclusiveMinimum": ("n.v > n.s.exclusiveMinimum", "'be more than ' + string(n.s.exclusiveMinimum)"),
    "exclusiveMaximum": ("n.v < n.s.exclusiveMaximum", "'be less than ' + string(n.s.exclusiveMaximum)"),
}
STRINGS = {
    "minLength": ("size(n.v) >= n.s.minLength", "'have at least ' + string(n.s.minLength) + ' characters'"),
    "maxLength": ("size(n.v) <= n.s.maxLength", "'have at most ' + string(n.s.maxLength) + ' characters'"),
    "pattern": (f"variables.patternChars > {PATTERN_CHARS} || n.v.matches(n.s.pattern)", "'match ' + n.s.pattern"),
}
ARRAYS = {
    "minItems": ("size(n.v) >= n.s.minItems", "'have at least ' + string(n.s.minItems) + ' items'"),
    "maxItems": ("size(n.v) <= n.s.maxItems", "'have at most ' + string(n.s.maxItems) + ' items'"),
}
NUMBER_FOUND = "string(n.v)"
STRING_FOUND = "(size(n.v) > 64 ? string(size(n.v)) + ' characters' : n.v)"
ARRAY_FOUND = "string(size(n.v))"
ANNOTATIONS = ("title", "description", "default", "examples")
"""Keywords that check nothing."""
