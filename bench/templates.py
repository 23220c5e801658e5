"""`python -m bench.templates`: what TaskTemplates cost the API server for each create; about a minute.

Creates are dry runs, so that etcd has no part in it. All kinds are measured in turn, and ratios are of one round. Then
payloads that are made to be expensive are sent, each alone.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
import time
from contextlib import suppress
from statistics import median
from typing import Any

from bench.machine import load, of_component
from bench.own_stack import own_stack, say
from bench.tasks import body, each
from taskflow_core.errors import Invalid
from taskflow_core.kube.client import KubeClient, tasks_path
from taskflow_local.stack import Stack

AIM_SECONDS = 0.3
ROUNDS, CREATES, AT_ONCE = 5, 100, 4
KINDS = {"no template": 0, "no handler matches": 1, "one handler": 1, "200 handlers": 200}
"""Handlers of the namespace's template."""
ARGUMENTS = {"region": "eu", "year": 2026, "ratio": 0.5, "tags": ["a", "b"]}
SCHEMA = {
    "type": "object",
    "required": ["region"],
    "additionalProperties": False,
    "properties": {
        "region": {"enum": ["eu", "us"]},
        "year": {"type": "integer", "minimum": 1990},
        "ratio": {"type": "number", "exclusiveMaximum": 1},
        "tags": {"type": "array", "maxItems": 10, "items": {"type": "string", "maxLength": 20}},
    },
}
_DIGIT = {"type": "integer", "minimum": 0, "maximum": 9}
_NUMBERS = {"type": "array", "items": _DIGIT}
_FIELDS = {"x": _DIGIT, "y": _DIGIT}
_ROW = {"type": "object", "required": ["x", "y"], "additionalProperties": False, "properties": _FIELDS}
_WIDE = {"type": "object", "additionalProperties": False, "properties": {f"p{each}": _NUMBERS for each in range(64)}}
# Expensive for an engine that goes back, and for one that keeps many states.
_PATTERNS = {"nested": "^(a+)+$", "choices": "^(a|a|aa)*$", "repeated": f"({'a?' * 10}){{94}}b"}
HOSTILE_SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "numbers": _NUMBERS,
        "rows": {"type": "array", "items": _ROW},
        "wide": _WIDE,
        "deep": {"type": "object", "properties": {"d": {"type": "object", "properties": {"d": {"type": "object"}}}}},
        **{name: {"type": "string", "pattern": pattern} for name, pattern in _PATTERNS.items()},
        **{f"repeated{each}": {"type": "string", "pattern": _PATTERNS["repeated"]} for each in range(40)},
    },
}


def _deep(depth: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for _ in range(depth):
        found = {"d": found}
    return found


HOSTILE: dict[str, dict[str, Any]] = {
    "20,000 integers": {"numbers": [1] * 20_000},
    "20,000 wrong ones": {"numbers": [-1] * 20_000},
    "128 wrong integers": {"numbers": [-1] * 128},
    "128 rows without their fields": {"rows": [{"z": 1}] * 128},
    "64 rows of wrong integers": {"rows": [{"x": -1, "y": 10}] * 64},
    "depth 50": {"deep": _deep(50)},
    "1,000 keys": {"wide": {f"k{each}": 1 for each in range(1000)}},
    "128 unknown keys": {"wide": {f"k{each}": 1 for each in range(64)}, "numbers": [-1] * 60},
    "a string of 1 MiB": {"nested": "a" * 1024 * 1024 + "!"},
    "catastrophic patterns": dict.fromkeys(_PATTERNS, "a" * 1000),
    "40 catastrophic patterns": {f"repeated{each}": "a" * 102 for each in range(40)},
}
"""Keyword arguments by what is hostile about them."""


def templates_path(namespace: str) -> str:
    """The collection of TaskTemplates of a namespace."""
    return f"/apis/taskflow.dev/v1alpha1/namespaces/{namespace}/tasktemplates"


def template(namespace: str, handlers: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """A TaskTemplate of schemas by handler."""
    found = [{"name": name, "kwargs": schema} for name, schema in handlers.items()]
    metadata = {"name": "bench", "namespace": namespace}
    return {
        "apiVersion": "taskflow.dev/v1alpha1",
        "kind": "TaskTemplate",
        "metadata": metadata,
        "spec": {"handlers": found},
    }


class Kind:
    """Creates in one namespace."""

    def __init__(self, stack: Stack, kube: KubeClient, namespace: str) -> None:
        self.stack, self.kube, self.namespace = stack, kube, namespace
        self.costs: list[float] = []

    async def measure(self) -> None:
        """One round: CPU of the API server for each create, in milliseconds."""
        before = of_component(self.stack, "kube-apiserver").cpu
        await each(range(CREATES), self._create, AT_ONCE)
        self.costs.append((of_component(self.stack, "kube-apiserver").cpu - before) / CREATES * 1e3)

    async def _create(self, _: int) -> None:
        await dry_run(self.kube, self.namespace, "bench.handler0", ARGUMENTS)


_numbers = itertools.count()


async def dry_run(kube: KubeClient, namespace: str, handler: str, kwargs: dict[str, Any]) -> None:
    """Have the API server admit a Task. Raises Invalid where it refuses."""
    task = body(f"bench-{next(_numbers)}", handler, kwargs=kwargs)
    await kube.request("POST", tasks_path(namespace), task, params={"dryRun": "All"})


async def until_known(kube: KubeClient, namespace: str, handler: str) -> None:
    """Wait until a new TaskTemplate is used."""
    while True:
        try:
            await dry_run(kube, namespace, handler, {"unknown": 1})
        except Invalid:
            return
        await asyncio.sleep(0.1)


async def kinds(stack: Stack, kube: KubeClient) -> dict[str, Kind]:
    """The kinds of creates, by name, with their namespaces and templates."""
    found = {}
    for number, (name, handlers) in enumerate(KINDS.items()):
        namespace = f"kind-{number}"
        await kube.request("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
        if handlers:
            first = "other" if name == "no handler matches" else "bench.handler"
            schemas = {f"{first}{each}": SCHEMA for each in range(handlers)}
            await kube.request("POST", templates_path(namespace), template(namespace, schemas))
            await until_known(kube, namespace, f"{first}0")
        found[name] = Kind(stack, kube, namespace)
    return found


async def hostile(kube: KubeClient) -> dict[str, float]:
    """Seconds until each hostile payload is answered; the best of three, since the machine has other work."""
    await kube.request("POST", templates_path("default"), template("default", {"hostile": HOSTILE_SCHEMA}))
    await until_known(kube, "default", "hostile")
    found: dict[str, float] = {}
    for name, kwargs in HOSTILE.items():
        for _ in range(3):
            began = time.monotonic()
            with suppress(Invalid):
                await dry_run(kube, "default", "hostile", kwargs)
            found[name] = min(found.get(name, 1e9), time.monotonic() - began)
    return found


async def run(stack: Stack) -> int:
    """Measure and print; the exit code says whether the aim is met."""
    kube = await KubeClient.connect()
    try:
        found = await kinds(stack, kube)
        for _ in range(ROUNDS):
            for kind in found.values():
                await kind.measure()
        slow = await hostile(kube)
    finally:
        await kube.close()
    say(f"median of {ROUNDS} rounds, {AT_ONCE} at a time; load {load()}")
    say(f"{'create':30}{'CPU ms each':>12}{'ratio':>8}")
    floor = found["no template"].costs
    for name, kind in found.items():
        ratio = median(one / other for one, other in zip(kind.costs, floor, strict=True))
        say(f"{name:30}{median(kind.costs):12.2f}{ratio:8.2f}")
    say(f"{'hostile payload':30}{'ms':>12}")
    for name, seconds in slow.items():
        say(f"{name:30}{seconds * 1e3:12.0f}")
    return 0 if max(slow.values()) < AIM_SECONDS else 1


def main() -> int:
    """Start, measure, stop; return 1 if a hostile payload took too long."""
    with own_stack(("etcd", "kube-apiserver")) as stack:
        stack.apply_crds()
        return asyncio.run(run(stack))


if __name__ == "__main__":
    sys.exit(main())
