"""Runs handlers: the only consumer of broker messages. Holds neither a Kubernetes client nor a database login.

What authors of handlers use is here: `from taskflow_worker import Context, handler`. Celery is imported by the worker
program alone, so that this import stays light.
"""

from taskflow_worker.context import Context
from taskflow_worker.failures import NonRetryable, Stopped
from taskflow_worker.registry import handler

__all__ = ["Context", "NonRetryable", "Stopped", "handler"]
