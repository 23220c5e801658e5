"""What handler authors import: `from taskflow_worker.sdk import Context, handler`.

Nothing here imports Celery, so a handler module stays light to import and to test. `taskflow_worker.sdk.testing` runs a
handler without a server.
"""

from taskflow_worker.sdk.again import Again
from taskflow_worker.sdk.context import Context
from taskflow_worker.sdk.failures import NonRetryable, Stopped
from taskflow_worker.sdk.registry import handler

__all__ = ["Again", "Context", "NonRetryable", "Stopped", "handler"]
