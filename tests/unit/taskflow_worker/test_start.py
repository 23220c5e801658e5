"""A cold worker must not import slow modules that it does not need."""

from __future__ import annotations

import subprocess
import sys

HEAVY = (
    "IPython",
    "aiohttp",
    "alembic",
    "celery.bin",
    "celery.contrib.testing",
    "fastapi",
    "httpx",
    "httpx2",
    "jwt",
    "kopf",
    "kubernetes",
    "matplotlib",
    "numpy",
    "opentelemetry.exporter",
    "pandas",
    "prometheus_client",
    "psycopg",
    "pyarrow",
    "pytest",
    "setuptools",
    "sqlalchemy",
    "starlette",
    "taskflow_api",
    "taskflow_local",
    "taskflow_operator",
    "uvicorn",
    "uvloop",
    "yarl",
)
"""Modules that take tens of milliseconds to import and that a worker does not need before its first message."""


def test_the_workers_entry_imports_nothing_heavy_that_it_does_not_need() -> None:
    script = f"import sys, taskflow_worker.__main__; print(*[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
