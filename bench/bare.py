"""`python -m bench.bare PORT BODY`: bare FastAPI routes with the process settings of the REST API.

The REST benchmark compares the API with them. `/model` returns a Task as a response model, as the API does; `/bytes`
returns it as bytes; `/redis` reads the bytes from Redis (REDIS_URL) first, which is the minimum cost of a read from a
cache. `/create` forwards a Task to the API server and returns its response, which is the minimum cost of a create:
unread, unchecked and uncounted.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from pydantic import SecretStr

from taskflow_api.tasks.views import TaskDetail
from taskflow_core.kube.client import KubeClient, tasks_path
from taskflow_core.ledger.connect import connect_async
from taskflow_core.settings import RedisSettings

KEY = "bench:task"


def main() -> int:
    """Serve until SIGTERM."""
    port, raw = int(sys.argv[1]), Path(sys.argv[2]).read_bytes()
    task = TaskDetail.model_validate_json(raw)
    client = connect_async(RedisSettings(url=SecretStr(os.environ["REDIS_URL"])))

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.kube = await KubeClient.connect()
        yield
        await app.state.kube.close()

    app = FastAPI(lifespan=lifespan)

    @app.get("/model")
    async def model() -> TaskDetail:
        return task

    @app.get("/bytes")
    async def raw_bytes() -> Response:
        return Response(raw, media_type="application/json")

    @app.get("/redis")
    async def cached() -> Response:
        return Response(await client.get(KEY), media_type="application/json")

    @app.post("/create")
    async def create(request: Request) -> Response:
        made = await app.state.kube.request("POST", tasks_path("default"), await request.json())
        return JSONResponse(made, status_code=HTTPStatus.CREATED)

    uvicorn.run(app, host="127.0.0.1", port=port, log_config=None, access_log=False, server_header=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
