"""docs/reference/settings.md, from the settings classes."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from enum import StrEnum
from typing import Any, Literal, get_args, get_origin

from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings

from taskflow_api.settings import ApiSettings, LimitSettings, OidcSettings, RegisterSettings, WebhookSettings
from taskflow_core.settings import CacheSettings, DatabaseSettings, LogSettings, RedisSettings, StorageSettings
from taskflow_operator.settings import OperatorSettings
from taskflow_worker.settings import WorkerSettings

CLASSES: tuple[tuple[type[BaseSettings], str], ...] = (
    (OperatorSettings, "operator"),
    (ApiSettings, "API"),
    (LimitSettings, "API"),
    (CacheSettings, "operator, API"),
    (OidcSettings, "API"),
    (RegisterSettings, "API"),
    (WebhookSettings, "API, notifier"),
    (WorkerSettings, "worker"),
    (RedisSettings, "operator, worker"),
    (DatabaseSettings, "operator, API, notifier"),
    (StorageSettings, "API, worker"),
    (LogSettings, "all"),
)
BOUNDS = (
    ("ge", ">="),
    ("gt", ">"),
    ("le", "<="),
    ("lt", "<"),
    ("min_length", "length >="),
    ("max_length", "length <="),
)
INTRODUCTION = """# Settings

Every setting is an environment variable, read once when a component starts. A value that does not fit ends the component with exit code
2 and a line that names it. Secrets are never logged.

Written by `make gen` from the settings classes.
"""
TRACING = """
## Tracing

| variable | used by | |
|---|---|---|
| `OTEL_EXPORTER_OTLP_ENDPOINT` | operator | Where spans go, by OTLP over HTTP; needs the extra `otel`. Unset: no spans, at no cost. The exporter's other \
`OTEL_EXPORTER_OTLP_` variables apply too. |

Each attempt is one span in the trace of its Task (annotation `taskflow.dev/traceparent`); a retry links to the attempt before it.
"""


def documented(owner: type[BaseSettings]) -> dict[str, str]:
    """The sentences below each field in the source."""
    (definition,) = ast.parse(inspect.getsource(owner)).body
    assert isinstance(definition, ast.ClassDef)
    found: dict[str, str] = {}
    for former, line in zip(definition.body, definition.body[1:], strict=False):
        if isinstance(former, ast.AnnAssign) and isinstance(former.target, ast.Name) and isinstance(line, ast.Expr):
            found[former.target.id] = " ".join(str(ast.literal_eval(line.value)).split())
    return found


def row(owner: type[BaseSettings], name: str, field: FieldInfo, words: str) -> str:
    """One line of the table."""
    variable = f"{owner.model_config.get('env_prefix', '')}{name}".upper()
    cells = (f"`{variable}`", kind(field.annotation), default(field), "; ".join(bounds(field)), words)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def kind(annotation: Any) -> str:
    """A type as a reader knows it."""
    options = [each for each in get_args(annotation) if each is not type(None)]
    if get_origin(annotation) is Literal:
        return "one of " + ", ".join(f"`{option}`" for option in options)
    if get_origin(annotation) is tuple:
        return "list, separated by commas"
    if options:
        return kind(options[0])
    if isinstance(annotation, type) and issubclass(annotation, StrEnum):
        return "one of " + ", ".join(f"`{option}`" for option in annotation)
    names = {int: "integer", float: "number", bool: "boolean", str: "text", SecretStr: "secret text"}
    return names[annotation]


def default(field: FieldInfo) -> str:
    """What holds when it is not set."""
    if field.is_required():
        return "required"
    if field.default_factory is not None:
        return "see there"
    value = field.default
    if value is None or value in ((), ""):
        return "unset"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def bounds(field: FieldInfo) -> Iterator[str]:
    """What a value has to fit, beside its type."""
    for constraint in field.metadata:
        yield from (f"{sign} {getattr(constraint, key)}" for key, sign in BOUNDS if hasattr(constraint, key))
        if getattr(constraint, "pattern", None):
            yield f"`{constraint.pattern}`"


def pages() -> dict[str, str]:
    """The page by its name.

    Raises:
        SystemExit: a setting has no sentence.
    """
    return {"settings": _page()}


def _page() -> str:
    lines = [INTRODUCTION]
    for owner, users in CLASSES:
        words = documented(owner)
        if missing := [name for name in owner.model_fields if name not in words]:
            raise SystemExit(f"{owner.__name__}: no sentence below {', '.join(missing)}; say what it is for")
        lines += [f"## {owner.__name__.removesuffix('Settings')} ({users})", "", inspect.getdoc(owner) or "", ""]
        lines += ["| variable | type | default | bounds | |", "|---|---|---|---|---|"]
        lines += [*(row(owner, name, field, words[name]) for name, field in owner.model_fields.items()), ""]
    return "\n".join(lines).rstrip("\n") + "\n" + TRACING
