from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from taskflow_core.errors import Conflict, Forbidden, TaskflowError
from taskflow_core.kube.client import Hooks
from taskflow_core.kube.scopes import Batch, merged, scoped
from tests.unit.taskflow_core.kube.test_client import client, ok, refusal


def at(version: int) -> dict[str, Any]:
    return {"type": "MODIFIED", "object": {"metadata": {"resourceVersion": str(version)}}}


def bookmark(version: int) -> dict[str, Any]:
    return {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": str(version)}}}


async def watch(*steps: Batch | TaskflowError | asyncio.Event) -> AsyncGenerator[Batch]:
    """Waits for the events among its steps, gives the batches, raises the error; ends after the last."""
    for step in steps:
        if isinstance(step, TaskflowError):
            raise step
        if isinstance(step, asyncio.Event):
            await step.wait()
        else:
            yield step


def test_only_a_path_of_the_whole_cluster_is_split() -> None:
    assert scoped("/apis/g/v1/tasks", ()) == {"": "/apis/g/v1/tasks"}
    assert scoped("/api/v1/namespaces/x/pods", ("a",)) == {"": "/api/v1/namespaces/x/pods"}
    split = {"a": "/apis/g/v1/namespaces/a/tasks", "b": "/apis/g/v1/namespaces/b/tasks"}
    assert scoped("/apis/g/v1/tasks", ("a", "b")) == split


async def test_a_next_watch_begins_where_the_slowest_is() -> None:
    go_on, hold = asyncio.Event(), asyncio.Event()
    watches = {"a": watch([], [at(12)], go_on, [at(99)]), "b": watch(hold, [at(20)], asyncio.Event())}
    batches: list[Batch] = []
    async for batch in merged(watches, "7"):
        batches.append(batch)
        if len(batches) == 2:
            hold.set()
        if len(batches) == 3:
            go_on.set()
    # 99 comes after 20 and is a larger number, not a larger word; b is at 20 then.
    assert batches == [[], [at(12), bookmark(7)], [at(20), bookmark(12)], [at(99), bookmark(20)]]


async def test_what_one_raises_ends_all_of_them() -> None:
    with pytest.raises(Conflict, match="too old"):
        async for _ in merged({"a": watch(Conflict("too old")), "b": watch(asyncio.Event())}, "7"):
            pass


async def test_a_refused_namespace_is_left_out_and_holds_nobody_up() -> None:
    refused_first = asyncio.Event()
    watches = {"a": watch(Forbidden("no")), "b": watch(refused_first, [at(20)])}
    running = merged(watches, "7")
    asyncio.get_running_loop().call_later(0.01, refused_first.set)
    assert [batch async for batch in running] == [[at(20), bookmark(20)]]


async def test_all_refused_is_a_refusal() -> None:
    with pytest.raises(Forbidden):
        async for _ in merged({"a": watch(Forbidden("no")), "b": watch(Forbidden("no"))}, "7"):
            pass


async def test_each_namespace_is_listed_and_the_first_version_counts() -> None:
    first, second = {"metadata": {"name": "x"}}, {"metadata": {"name": "y"}}
    kube, session = client(
        ok(items=[first], metadata={"resourceVersion": "9"}),
        refusal(403),
        ok(items=[second], metadata={"resourceVersion": "12"}),
        hooks=Hooks(namespaces=("a", "b", "c")),
    )
    pages = [page async for page in kube.list_pages("/apis/g/v1/tasks")]
    assert [(page.items, page.version) for page in pages] == [([first], "9"), ([second], "9")]
    assert [each["path"] for each in session.asked] == [f"/apis/g/v1/namespaces/{ns}/tasks" for ns in "abc"]


async def test_a_list_of_which_every_namespace_is_refused_is_refused() -> None:
    kube, _ = client(refusal(403), refusal(403), hooks=Hooks(namespaces=("a", "b")))
    with pytest.raises(Forbidden):
        [page async for page in kube.list_pages("/apis/g/v1/tasks")]


async def test_a_watch_of_some_namespaces_is_one_of_each() -> None:
    kube, session = client(refusal(403), refusal(410), hooks=Hooks(namespaces=("a", "b")))
    with pytest.raises(Conflict):
        async for _ in kube.watch("/apis/g/v1/tasks", "7"):
            pass
    assert [each["path"] for each in session.asked] == [f"/apis/g/v1/namespaces/{ns}/tasks" for ns in "ab"]
