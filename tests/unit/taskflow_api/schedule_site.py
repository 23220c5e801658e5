"""A namespace with a schedule, for the tests of its routes."""

from __future__ import annotations

from typing import Any

from tests.unit.taskflow_api.fakes import Api

SCHEDULES = "/v1/namespaces/team-a/schedules"
PATH = "/apis/taskflow.dev/v1alpha1/namespaces/team-a/taskschedules"
TEMPLATE = {"spec": {"handler": "reports.nightly"}}
SPEC: dict[str, Any] = {"schedules": ["30 2 * * *"], "timeZone": "Europe/Berlin", "taskTemplate": TEMPLATE}


def body(name: str = "nightly", *, status: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    """The resource."""
    meta = {
        "name": name,
        "namespace": "team-a",
        "uid": f"uid-{name}",
        "resourceVersion": "7",
        "generation": 1,
        "creationTimestamp": "2026-09-20T12:00:00Z",
        "labels": {"team": "a"},
    }
    return {"metadata": meta, "spec": SPEC | spec} | ({"status": status} if status else {})


def stored(**fields: Any) -> Api:
    """An API whose namespace team-a has the schedule `nightly`."""
    api = Api()
    api.kube.objects[PATH + "/nightly"] = body(**fields)
    return api
