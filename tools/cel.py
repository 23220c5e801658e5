"""Builds expressions of CEL, the language of admission policies."""

from __future__ import annotations


def nested(lists: str, depth: int, macro: str, body: str, ending: str = "") -> str:
    """Apply a macro such as `map` to each `n` of lists that are nested `depth` deep; `ending` follows each macro."""
    names = [f"l{level}" for level in range(depth)]
    text = body
    for source, item in reversed(list(zip([lists, *names], [*names, "n"], strict=True))):
        text = f"{source}.{macro}({item}, {text}){ending}"
    return text


def let(name: str, value: str, body: str) -> str:
    """Compute a value once. CEL has no variables within an expression."""
    return f"[{value}].map({name}, {body})[0]"


def in_order(strings: str, numbers: str) -> str:
    """The strings of a list, or the keys of a map, in order. Compares each with each, so use it for few.

    Args:
        strings: the list or map, an expression.
        numbers: a list of 0, 1, 2, ... that is at least as long.
    """
    ranked = "all.map(a, {'name': dyn(a), 'rank': dyn(all.filter(b, b < a).size())})"
    pick = f"{numbers}.filter(i, i < size(ranked)).map(i, ranked.filter(r, r.rank == i)).filter(r, size(r) > 0)"
    return let("all", f"{strings}.map(x, x)", let("ranked", ranked, f"{pick}.map(r, string(r[0].name))"))


def quoted(text: str) -> str:
    """A string literal."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
