"""Makes values fit into PostgreSQL."""

from __future__ import annotations

import math
import re
from typing import Any

_REFUSED = re.compile("[\x00\ud800-\udfff]")
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def fit_text(value: str, limit: int | None = None) -> str:
    """The text as PostgreSQL can hold it: NUL and lone surrogates become U+FFFD, since it refuses both.

    User code chooses these texts. Refusing them would stop the mirror for everybody; dropping the event would lose
    the outcome of a task for the sake of one character.
    """
    fitted = _REFUSED.sub(_REPLACEMENT, value)
    return fitted if limit is None else fitted[:limit]


def fit_json(value: Any) -> Any:
    """The JSON value as `jsonb` can hold it: texts and keys by `fit_text`; NaN and infinities become their names."""
    if isinstance(value, str):
        return fit_text(value)
    if isinstance(value, dict):
        return {fit_text(str(key)): fit_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [fit_json(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}[str(value)]
    return value
