"""Handlers for arrays. They keep a record of their own of each item that was run."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from taskflow_worker.sdk import Context, handler


@handler("arrays.work")
def work(record: str, bad: dict[str, list[int]], seconds: float, item: int, *, context: Context) -> None:
    """Note item and attempt; fail where `bad` of the attempt says so."""
    with Path(record, str(os.getpid())).open("a") as file:
        file.write(f"{item} {context.attempt}\n")
    if seconds:
        time.sleep(seconds)
    if item in bad.get(str(context.attempt), ()):
        raise ValueError(f"item {item} is bad")


@handler("arrays.words")
def words(item: dict[str, str]) -> str:
    """A result for each item."""
    return item["words"].upper()


@handler("arrays.batch", batch=True)
def batch(items: Sequence[int]) -> list[Any]:
    """The size of the batch, for each of its items."""
    return [len(items)] * len(items)


@handler("arrays.slow")
def slow(item: int) -> None:
    """One item hangs."""
    if item == 3:
        time.sleep(60)


@handler("arrays.poison")
def poison(item: int) -> None:
    """One item takes its process with it."""
    if item == 42:
        os._exit(1)
