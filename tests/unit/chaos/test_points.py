"""Fault points: they are where the product has functions, and strike once, at the passage that was asked for."""

from __future__ import annotations

import asyncio
import functools
import importlib
import os
import signal
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.chaos.code import sitecustomize as points


@pytest.fixture
def kills(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    monkeypatch.setattr(points, "FOLDER", tmp_path)
    monkeypatch.setattr(points, "KILLS", tmp_path / "kills.jsonl")
    monkeypatch.setattr(os, "kill", lambda pid, number: found.append((pid, number)))
    return found


def arm(folder: Path, point: str, count: int) -> Path:
    path = folder / f"{points.POINTS[point].program}.armed"
    path.write_text(f"{point} {count} {os.urandom(4).hex()}")
    return path


@pytest.mark.parametrize("point", points.POINTS.values(), ids=points.POINTS)
def test_a_point_is_a_function_of_the_product(point: points.Point) -> None:
    module = importlib.import_module(point.module)
    assert callable(functools.reduce(getattr, point.function.split("."), module))


def test_the_passage_that_was_asked_for_dies_and_none_after_it(tmp_path: Path, kills: list[tuple[int, int]]) -> None:
    armed = arm(tmp_path, "worker-claim", 3)
    for passage in range(1, 6):
        points.passing("worker-claim")
        assert len(kills) == (passage >= 3)
    assert kills == [(os.getpid(), signal.SIGKILL)]
    assert not armed.exists()


def test_another_point_of_the_program_is_passed(tmp_path: Path, kills: list[tuple[int, int]]) -> None:
    arm(tmp_path, "worker-claim", 1)
    points.passing("worker-finish")
    assert kills == []


def test_nothing_is_armed_without_a_file(kills: list[tuple[int, int]]) -> None:
    points.passing("worker-claim")
    assert kills == []


@pytest.mark.parametrize(("before", "order"), [(True, ["died", "called"]), (False, ["called", "died"])])
def test_a_wrapped_function_dies_on_the_side_that_was_asked_for(
    before: bool, order: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    monkeypatch.setattr(points, "passing", lambda name: seen.append("died"))
    module = ModuleType("product")

    def plain(_: Any) -> int:
        seen.append("called")
        return 7

    async def waiting(_: Any) -> int:
        return plain(_)

    module.plain, module.waiting = plain, waiting  # type: ignore[attr-defined]
    named = {name: points.Point("x", "product", name, before=before) for name in ("plain", "waiting")}
    points.patch(module, named)
    assert module.plain(1) == 7
    assert asyncio.run(module.waiting(1)) == 7
    assert seen == order * 2


def test_a_function_that_the_product_no_longer_has_is_an_error() -> None:
    with pytest.raises(AttributeError, match="gone"):
        points.patch(ModuleType("product"), {"p": points.Point("x", "product", "gone")})
