"""Reads and changes TaskSchedule resources for the routes."""

from __future__ import annotations

from typing import Any

from fastapi import Response

from taskflow_api.http.etag import etag, if_match_version
from taskflow_api.http.problems import ProblemError
from taskflow_api.http.services import Services
from taskflow_api.ports import FIELD_MANAGER
from taskflow_api.schedules.views import ScheduleView, schedule_view
from taskflow_core.domain import naming
from taskflow_core.domain.taskschedule import TaskSchedule
from taskflow_core.errors import Conflict, NotFound
from taskflow_core.kube.client import MERGE_PATCH, resource_path

COLLECTION = "/v1/namespaces/{namespace}/schedules"
ONE = COLLECTION + "/{name:part}"
RESOURCE = TaskSchedule.PLURAL
WRITING = {"fieldManager": FIELD_MANAGER, "fieldValidation": "Strict"}


def schedule_path(namespace: str, name: str | None = None) -> str:
    """URL path of the schedules of a namespace, or of one."""
    return resource_path(f"apis/{naming.API_VERSION}", RESOURCE, namespace, name)


async def read(services: Services, namespace: str, name: str) -> dict[str, Any]:
    """The resource.

    Raises:
        NotFound: there is none.
        Unavailable: the API server does not answer.
    """
    try:
        return await services.kube.request("GET", schedule_path(namespace, name))
    except NotFound:
        raise no_schedule(namespace, name) from None


async def change(
    services: Services, namespace: str, name: str, patch: dict[str, Any], if_match: str | None = None
) -> dict[str, Any]:
    """The resource after a JSON merge patch.

    Raises:
        ProblemError: 412, it has changed since it was read.
        NotFound: there is none.
        Invalid: the API server refuses the result.
        Unavailable: the API server does not answer.
    """
    if (version := if_match_version(if_match)) is not None:
        patch = patch | {"metadata": {"resourceVersion": version}}
    path = schedule_path(namespace, name)
    try:
        return await services.kube.request("PATCH", path, patch, content_type=MERGE_PATCH, params=WRITING)
    except Conflict as error:
        raise ProblemError(412, "the schedule has changed since it was read; read it again") from error
    except NotFound:
        raise no_schedule(namespace, name) from None


def shown(response: Response, body: dict[str, Any]) -> ScheduleView:
    """The view of a resource, and its ETag on the response."""
    response.headers["ETag"] = etag(body)
    return schedule_view(body)


def no_schedule(namespace: str, name: str) -> NotFound:
    """The error of a schedule that does not exist."""
    return NotFound(f"there is no TaskSchedule {name} in namespace {namespace}")
