"""Rows of `run_once`: what Tasks with `spec.rerun` did. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from taskflow_core.domain.phases import Phase, Reason
from taskflow_core.domain.run_once import digest
from taskflow_core.domain.task import Rerun, TaskSpec


def run_of(task: dict[str, Any], spec: TaskSpec, *, attempts: int) -> dict[str, Any] | None:
    """The row of a Task, if it did something and will do nothing more.

    Args:
        task: its row in `tasks`.
        spec: its specification.
        attempts: how many were started.
    """
    began = attempts > 0 or task["started_at"] is not None
    if spec.rerun is Rerun.ALWAYS or task["reason"] == Reason.ALREADY_RAN.value or not began:
        return None
    phase, finished = Phase(task["phase"]), task["finished_at"]
    if not phase.terminal:
        # Deleted while it ran: nobody knows how far it came.
        phase, finished = Phase.CANCELLED, task["deleted_at"]
    if finished is None:
        return None
    return {
        "namespace": task["namespace"],
        "name": task["name"],
        "digest": digest(spec),
        "uid": task["uid"],
        "phase": phase.value,
        "finished_at": finished,
        "result": task["result"],
        "outputs": task["outputs"],
    }


def best_runs(runs: Iterable[dict[str, Any]]) -> tuple[dict[str, Any], ...]:
    """One run for each key, sorted by it: a success if there is one, otherwise the latest."""
    best: dict[tuple[str, str, str], dict[str, Any]] = {}
    for run in runs:
        key = run["namespace"], run["name"], run["digest"]
        if key not in best or _rank(best[key]) < _rank(run):
            best[key] = run
    return tuple(best[key] for key in sorted(best))


def _rank(run: dict[str, Any]) -> tuple[Any, ...]:
    return run["phase"] == Phase.SUCCEEDED.value, run["finished_at"]
