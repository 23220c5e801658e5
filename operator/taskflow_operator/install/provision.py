"""`python -m taskflow_operator.install.provision secrets|pools FILE`: what an installation needs beside its manifests.

`secrets` makes the Secrets of the installation's own namespace that are not there yet, with random values: so no
manifest holds one, and installing again changes none. `pools` applies the WorkerPools; it may be repeated.

Exit codes: 0 done; 1 the API server does not answer or refuses, so try again; 2 the file or the credentials are
unusable; 143 stopped by SIGTERM.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import secrets
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from taskflow_core.broker import acl
from taskflow_core.domain import naming
from taskflow_core.domain.resource import Model
from taskflow_core.end_on_sigterm import end_on_sigterm
from taskflow_core.errors import Conflict, Invalid, NotFound, TaskflowError, Unavailable
from taskflow_core.kube.client import APPLY_PATCH, KubeClient, Requests, resource_path
from taskflow_core.settings import explain

FIELD_MANAGER = "taskflow-provision"
TIMEOUT_SECONDS = 120.0
"""For an API server that does not answer, and a CRD of the same release that it does not serve yet."""
_PAUSE_SECONDS = 1.0
_LABELS = {"app.kubernetes.io/part-of": "taskflow", naming.LABEL_MANAGED_BY: FIELD_MANAGER}
_CORE = "api/v1"


class DevServices(Model):
    """Services of the chart itself that need passwords."""

    secret: str
    postgres_host: str
    redis_host: str


class Plan(Model):
    """The file."""

    namespace: str
    token_secret: str | None = None
    """Secret to hold the key of attempt tokens; None when the user brought one."""
    dev_services: DevServices | None = None
    pools: tuple[dict[str, Any], ...] = Field(default=())
    """WorkerPools, whole."""


def generated(plan: Plan, random: Callable[[], str]) -> dict[str, dict[str, str]]:
    """The values of each Secret to create, by its name."""
    found: dict[str, dict[str, str]] = {}
    if plan.token_secret is not None:
        found[plan.token_secret] = {"token-key": random()}
    if (dev := plan.dev_services) is not None:
        postgres, redis, operator, reader = random(), random(), random(), random()
        found[dev.secret] = {
            "postgres-password": postgres,
            "database-url": f"postgresql+psycopg://taskflow:{postgres}@{dev.postgres_host}:5432/taskflow",
            # A file, because arguments are visible to everybody on the node.
            # The users of components are in it so that they are there when Redis starts; the provisioner keeps them.
            "redis.conf": f"requirepass {redis}\n"
            f"user {acl.OPERATOR} {' '.join(acl.operator_rules(operator))}\n"
            f"user {acl.API} {' '.join(acl.api_rules(reader))}\n",
            "redis-admin-url": f"redis://:{redis}@{dev.redis_host}:6379/0",
            "redis-url": f"redis://{acl.OPERATOR}:{operator}@{dev.redis_host}:6379/0",
            "redis-api-url": f"redis://{acl.API}:{reader}@{dev.redis_host}:6379/0",
            "s3-admin-access-key": f"taskflow-{random()[:8]}",
            "s3-admin-secret-key": random(),
            # A user of MinIO that the provisioner makes.
            "s3-access-key": acl.API,
            "s3-secret-key": random(),
        }
    return found


async def make_secrets(
    kube: Requests, plan: Plan, random: Callable[[], str] = lambda: secrets.token_hex(24)
) -> list[str]:
    """Create the missing Secrets; returns a report. Raises as `KubeClient.request`."""
    done = []
    for name, values in generated(plan, random).items():
        try:
            await kube.request(
                "POST", resource_path(_CORE, "secrets", plan.namespace), _secret(name, plan.namespace, values)
            )
        except Conflict:
            done.append(f"Secret {plan.namespace}/{name} exists already")
        else:
            done.append(f"Secret {plan.namespace}/{name} created")
    return done


async def apply_pools(kube: Requests, plan: Plan) -> list[str]:
    """Apply the WorkerPools; returns a report. Raises as `KubeClient.request`."""
    done = []
    for pool in plan.pools:
        metadata = pool["metadata"]
        path = resource_path(f"apis/{naming.API_VERSION}", "workerpools", metadata["namespace"], metadata["name"])
        params = {"fieldManager": FIELD_MANAGER, "force": "true"}
        await kube.request("PATCH", path, pool, content_type=APPLY_PATCH, params=params)
        done.append(f"WorkerPool {metadata['namespace']}/{metadata['name']} applied")
    return done


def _secret(name: str, namespace: str, values: Mapping[str, str]) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": namespace, "labels": _LABELS},
        "type": "Opaque",
        # Not `stringData`: of that, server-side apply would not know what it owns.
        "data": {key: base64.b64encode(value.encode()).decode() for key, value in values.items()},
    }


async def call_with_retries(
    act: Callable[[], Awaitable[list[str]]],
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> list[str]:
    """Try again while the API server does not answer, or does not know the kind or namespace yet."""
    deadline = clock() + TIMEOUT_SECONDS
    while True:
        try:
            return await act()
        except (Unavailable, NotFound):
            if clock() >= deadline:
                raise
        await sleep(_PAUSE_SECONDS)


async def _run(action: str, plan: Plan) -> list[str]:
    kube = await KubeClient.connect(connections=2)
    try:
        return await call_with_retries(
            lambda: make_secrets(kube, plan) if action == "secrets" else apply_pools(kube, plan)
        )
    finally:
        await kube.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m taskflow_operator.install.provision")
    parser.add_argument("action", choices=("secrets", "pools"))
    parser.add_argument("file", type=Path, help="the plan, JSON")
    chosen = parser.parse_args(arguments)
    end_on_sigterm()
    try:
        plan = Plan.model_validate_json(chosen.file.read_bytes())
        done = asyncio.run(_run(chosen.action, plan))
    except ValidationError as error:
        return _fail(2, *explain(error))
    except (OSError, Invalid) as error:
        return _fail(2, str(error))
    except TaskflowError as error:
        return _fail(1, str(error))
    print(*done, sep="\n")  # noqa: T201 - a command line prints
    return 0


def _fail(code: int, *lines: str) -> int:
    print(*(f"provision: {line}" for line in lines), sep="\n", file=sys.stderr)  # noqa: T201 - a command line prints
    return code


if __name__ == "__main__":
    sys.exit(main())
