"""A client of the TaskFlow REST API, for threads (`Client`) and for asyncio (`AsyncClient`).

The functions of `tasks`, `schedules`, `files`, `handlers`, `pools`, `keys` and `webhooks` build calls, which are
values. A client sends them:

    with Client(url, token) as client:
        made = client.send(tasks.create("team-a", "reports.lines", generate_name="report-", kwargs={"prefix": "ERROR"}))
        done = client.wait("team-a", made.name)
"""

from taskflow_client import files, handlers, keys, pools, schedules, tasks, webhooks
from taskflow_client.calls import Call
from taskflow_client.client import AsyncClient, Client
from taskflow_client.errors import TaskflowError

__all__ = [
    "AsyncClient",
    "Call",
    "Client",
    "TaskflowError",
    "files",
    "handlers",
    "keys",
    "pools",
    "schedules",
    "tasks",
    "webhooks",
]
