"""A developer's own handlers in local mode: every worker has them, and again when their file changes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from taskflow_local.errors import LocalError
from taskflow_local.handlers import ERROR
from tests.documents import ROOT
from tests.e2e.own_stack import own_stack
from tests.e2e.product import Product, eventually, task

pytestmark = pytest.mark.e2e

IMPORT_SECONDS = 120
"""The files are imported in a process of their own, which starts slowly on a busy machine."""
MINE = """
import time
from pathlib import Path
from taskflow_worker.sdk import handler

@handler("mine.word")
def word() -> str:
    return "{word}"

@handler("mine.until")
def until(file: str) -> str:
    while not Path(file).exists():
        time.sleep(0.05)
    return "{word}"
{more}
"""


@pytest.fixture(scope="module")
def product() -> Iterator[Product]:
    with own_stack() as made:
        yield made


def write(path: Path, word: str, more: str = "") -> None:
    part = path.with_suffix(".part")
    part.write_text(MINE.format(word=word, more=more))
    part.replace(path)


def pods(product: Product) -> set[str]:
    return set(product.kubectl("get", "pods", "-l", "taskflow.dev/pool", "-o", "name").split())


def test_workers_follow_a_file_and_an_attempt_under_way_ends_with_what_it_began(product: Product) -> None:
    mine, go_on = product.folder / "mine.py", product.folder / "go-on"
    write(mine, "first")
    said: list[str] = []
    product.stack.up(said.append, handlers=[mine])
    assert said[:2] == [f"handlers: mine.until, mine.word; from {mine}", "workers restart when these files change"]
    product.kubectl("apply", "-f", str(ROOT / "examples/pool.yaml"), "-f", str(ROOT / "examples/celery_app/pool.yaml"))
    product.kubectl("wait", "tfp/main", "tfp/shop", "--for=condition=Ready", "--timeout=120s")
    assert product.run("one", "mine.word")["status"]["result"] == "first"
    product.apply(task("long", "mine.until", kwargs={"file": str(go_on)}))
    product.in_phase("long", "Running")

    before = pods(product)
    write(mine, "second", "x = (")
    error = product.stack.folder.handlers / ERROR
    eventually(error.exists, bool, IMPORT_SECONDS)
    assert "SyntaxError: '(' was never closed (mine.py" in error.read_text()
    assert product.run("two", "mine.word")["status"]["result"] == "first"
    with pytest.raises(LocalError, match="SyntaxError"):
        product.stack.up(said.append, handlers=[mine])
    assert pods(product) == before

    write(mine, "second")
    # All are asked to end at once. The idle ones do.
    eventually(lambda: len(pods(product) & before), (1).__eq__, IMPORT_SECONDS)
    assert not error.exists()
    go_on.touch()
    ended = product.finished("long")["status"]
    assert (ended["phase"], ended["attempt"], ended["result"]) == ("Succeeded", 1, "first")
    assert product.run("three", "mine.word")["status"]["result"] == "second"
    isolated = product.run("alone", "mine.word", isolation="Pod")
    assert isolated["status"]["result"] == "second"
