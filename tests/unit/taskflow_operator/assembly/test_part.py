from __future__ import annotations

from typing import Any, cast

import pytest

from taskflow_operator.assembly.part import Part, all_loops
from taskflow_operator.runtime.kind_watch import KindWatch


async def loop() -> None:
    return


def watch(plural: str) -> KindWatch:
    return KindWatch(cast("Any", None), plural, cast("Any", None))


def test_loops_and_watches_of_all_parts_run_side_by_side() -> None:
    parts = [Part({"dispatch": loop}, (watch("tasks"),)), Part({"limits": loop}, (watch("tasklimits"),))]
    assert set(all_loops(parts)) == {"dispatch", "watch-tasks", "limits", "watch-tasklimits"}


def test_no_loop_replaces_another_of_the_same_name() -> None:
    with pytest.raises(ValueError, match="two loops are called 'watch-tasks'"):
        all_loops([Part(watches=(watch("tasks"),)), Part(watches=(watch("tasks"),))])
    with pytest.raises(ValueError, match="two loops are called 'run'"):
        all_loops([Part({"run": loop}), Part({"run": loop})])
