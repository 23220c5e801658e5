"""Generates docs/reference/openapi.json, the OpenAPI document of the REST API with accounts enabled."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any, cast

from taskflow_api.app import create_app
from taskflow_api.wiring import Components


def files() -> dict[str, str]:
    """The document, by its file name."""
    # The routes are created but not called, so the components can be empty.
    empty: Any = SimpleNamespace()
    services: Any = SimpleNamespace(authenticate=empty)
    components = Components(services, identity=cast(Any, SimpleNamespace(accounts=empty)), hub=empty, limiter=empty)
    return {"openapi.json": json.dumps(create_app(components).openapi(), indent=1, ensure_ascii=False) + "\n"}
