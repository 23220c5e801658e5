"""docs/reference/openapi.json: the document that the REST API serves, with accounts on."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any, cast

from taskflow_api.app import create_app


def files() -> dict[str, str]:
    """The document by its file's name."""
    # Routes are made without being called, so nothing has to stand behind them.
    nothing: Any = SimpleNamespace()
    services = SimpleNamespace(identity=SimpleNamespace(accounts=nothing, tokens=SimpleNamespace(authenticate=nothing)))
    return {"openapi.json": json.dumps(create_app(cast(Any, services)).openapi(), indent=1, ensure_ascii=False) + "\n"}
