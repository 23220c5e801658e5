"""Arrays whose items are in an object."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from taskflow_core.domain.message import Message
from taskflow_operator.tasks.rules.decision import Enqueue
from tests.builders import UID
from tests.integration.arrays.accounts import accounted
from tests.integration.arrays.site import Site

pytestmark = pytest.mark.integration


async def test_items_of_an_object_are_counted_once_and_read_where_they_are_needed(site: Site) -> None:
    await site.start()
    site.work(2)
    got: list[Any] = []
    site.registry.add("take", got.append)
    rows = "".join(f'{number};"text\n{number}"\n' for number in range(3000))
    site.objects.content["team-a/data/in.csv"] = b"id;words\n" + rows.encode()
    source = {"key": "data/in.csv", "format": "CSV", "delimiter": ";"}
    site.add(handler="take", array={"itemsFrom": source, "indexes": "5-2999"})
    status = await site.finished(UID)
    assert (status["phase"], status["array"]["items"]) == ("Succeeded", "2995/2995")
    assert sorted(got, key=lambda row: int(row["id"])) == [
        {"id": str(number), "words": f"text\n{number}"} for number in range(5, 3000)
    ]
    await accounted(site, status, 2995)


async def test_an_object_that_is_not_there_fails_the_array(site: Site) -> None:
    await site.start()
    site.work(1)
    site.add(array={"itemsFrom": {"key": "data/none.jsonl"}})
    status = await site.finished(UID)
    assert (status["phase"], status["reason"]) == ("Failed", "InputMissing")
    assert "team-a/data/none.jsonl" in status["message"]
    assert status["array"]["items"] == "0/?"


async def test_an_object_that_would_lose_a_column_fails_the_array(site: Site) -> None:
    await site.start()
    site.work(1)
    site.objects.content["team-a/in.csv"] = b"a,a,b\n1,2,3\n"
    site.add(array={"itemsFrom": {"key": "in.csv", "format": "CSV"}})
    status = await site.finished(UID)
    assert (status["phase"], status["reason"]) == ("Failed", "ItemsInvalid")
    assert "line 1: the header names the column 'a' twice" in status["message"]


async def test_an_object_that_changes_meanwhile_fails_the_array(site: Site) -> None:
    await site.start()
    seen: list[str] = []

    def change(message: Message) -> bool:
        seen.append(message.member)
        if len(seen) == 2:
            site.objects.content["team-a/in.jsonl"] = b"1\n"
        return True

    site.work(1, change)
    site.objects.content["team-a/in.jsonl"] = b"".join(b"%d\n" % number for number in range(100))
    site.add(array={"itemsFrom": {"key": "in.jsonl"}})
    status = await site.finished(UID)
    assert (status["phase"], status["reason"]) == ("Failed", "ItemsInvalid")
    assert "must not change" in status["message"]


async def test_an_operator_that_dies_while_items_are_counted_counts_them_once_more_at_most(site: Site) -> None:
    await site.start()
    site.objects.content["team-a/in.jsonl"] = b"".join(b"%d\n" % number for number in range(500))
    site.add(array={"itemsFrom": {"key": "in.jsonl"}})
    await site.until(lambda: site.sent)
    await site.die()
    site.work(1)
    await asyncio.sleep(0.3)
    await site.start()
    (known,) = list(site.tasks)
    site.arrays.decided(known.task, Enqueue())
    status = await site.finished(UID)
    await accounted(site, status, 500)
    assert set(site.executed.values()) == {1}
