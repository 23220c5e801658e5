"""Reads and changes resources over a transport, and says in plain words what the API server refused."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, urlencode

from taskflow_cli.cluster.transport import Answer, Refused, Transport
from taskflow_cli.errors import CliError, Exit

Object = dict[str, Any]

PAGE = 500
_MERGE = "application/merge-patch+json"
_CODES: dict[int, Exit] = {
    HTTPStatus.UNAUTHORIZED: Exit.NOT_ALLOWED,
    HTTPStatus.FORBIDDEN: Exit.NOT_ALLOWED,
    HTTPStatus.NOT_FOUND: Exit.NOT_FOUND,
    HTTPStatus.GONE: Exit.NOT_FOUND,
    HTTPStatus.CONFLICT: Exit.CONFLICT,
    HTTPStatus.BAD_REQUEST: Exit.INVALID,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: Exit.INVALID,
    HTTPStatus.UNPROCESSABLE_ENTITY: Exit.INVALID,
}
_HINTS: dict[int, str] = {
    HTTPStatus.UNAUTHORIZED: "the credentials of the kubeconfig are wrong or have expired; log in to the cluster again",
    HTTPStatus.FORBIDDEN: "ask an administrator for the role view (to look), edit (Tasks) or admin (WorkerPools) here",
    HTTPStatus.TOO_MANY_REQUESTS: "the API server is overloaded; try again",
}


@dataclass(frozen=True)
class Resource:
    """A kind and where it is served."""

    kind: str
    plural: str
    short: str
    group: str = "taskflow.dev"
    version: str = "v1alpha1"

    def path(self, namespace: str, name: str = "") -> str:
        """Path of one object, or of all in the namespace; without a namespace, of all there are."""
        within = f"/namespaces/{quote(namespace, safe='')}" if namespace else ""
        end = f"/{quote(name, safe='')}" if name else ""
        return f"/apis/{self.group}/{self.version}{within}/{self.plural}{end}"

    @property
    def qualified(self) -> str:
        """The name that no other group can take, e.g. tasks.taskflow.dev."""
        return f"{self.plural}.{self.group}"

    def bare(self, name: str) -> str:
        """The name of an object that may be written as kubectl's `-o name` does.

        Raises:
            CliError: it names another kind.
        """
        kind, slash, rest = name.rpartition("/")
        singular = self.kind.lower()
        if slash and kind.lower() not in {
            self.qualified,
            self.plural,
            singular,
            f"{singular}.{self.group}",
            self.short,
        }:
            raise CliError(
                f"expected the name of a {self.kind}, found {name!r}",
                hint=f"write NAME or {singular}/NAME",
                code=Exit.USAGE,
            )
        return rest


TASKS = Resource("Task", "tasks", "tft")
POOLS = Resource("WorkerPool", "workerpools", "tfp")
SCHEDULES = Resource("TaskSchedule", "taskschedules", "tfs")
_LISTS = {"tasks": "list", "workerpools": "pool list", "taskschedules": "schedule list"}
EVENTS = Resource("Event", "events", "ev", group="events.k8s.io", version="v1")


class WatchExpiredError(Exception):
    """The watch cannot go on from its resource version; list again."""


class Kube:
    """The API server, seen from one namespace.

    Args:
        transport: Reaches it.
        namespace: The namespace of all requests but `list(all_namespaces=True)`.
    """

    def __init__(self, transport: Transport, namespace: str) -> None:
        self._transport = transport
        self.namespace = namespace

    def get(self, resource: Resource, name: str) -> Object:
        """One object.

        Raises:
            CliError: it cannot be had; if there is none, the hint names similar ones.
        """
        answer = self._transport.request("GET", resource.path(self.namespace, name))
        if answer.status == HTTPStatus.NOT_FOUND and _status(answer).get("details", {}).get("name"):
            raise CliError(
                f"{resource.kind} {name!r} was not found in namespace {self.namespace}",
                hint=self._similar(resource, name),
                code=Exit.NOT_FOUND,
            )
        return _without_noise(self._checked(answer, f"cannot read {resource.kind} {name!r}", resource))

    def find(self, resource: Resource, name: str) -> Object | None:
        """One object, or None if there is none."""
        answer = self._transport.request("GET", resource.path(self.namespace, name))
        if answer.status == HTTPStatus.NOT_FOUND:
            return None
        return _without_noise(self._checked(answer, f"cannot read {resource.kind} {name!r}", resource))

    def list(
        self,
        resource: Resource,
        *,
        labels: str = "",
        fields: str = "",
        limit: int = 0,
        all_namespaces: bool = False,
    ) -> list[Object]:
        """Objects, page by page; at most `limit` unless that is 0.

        Raises:
            CliError: they cannot be had.
        """
        found: list[Object] = []
        query = {"labelSelector": labels, "fieldSelector": fields}
        token = ""
        while True:
            size = min(PAGE, limit - len(found)) if limit else PAGE
            page = {name: value for name, value in {**query, "limit": str(size), "continue": token}.items() if value}
            path = resource.path("" if all_namespaces else self.namespace)
            answer = self._transport.request("GET", f"{path}?{urlencode(page)}")
            content = self._checked(answer, f"cannot list {resource.plural}", resource)
            head = {"apiVersion": f"{resource.group}/{resource.version}", "kind": resource.kind}
            found += [_without_noise({**head, **item}) for item in content.get("items") or ()]
            token = content.get("metadata", {}).get("continue") or ""
            if not token or (limit and len(found) >= limit):
                return found

    def create(self, resource: Resource, manifest: Object, *, dry_run: bool = False) -> Object:
        """Create an object; with `dry_run`, the server checks it and keeps nothing.

        Raises:
            CliError: it was refused.
        """
        metadata = manifest["metadata"]
        query = {"fieldManager": "taskflow", "fieldValidation": "Strict", **({"dryRun": "All"} if dry_run else {})}
        path = f"{resource.path(self.namespace)}?{urlencode(query)}"
        answer = self._transport.request("POST", path, json.dumps(manifest).encode(), "application/json")
        name = metadata.get("name") or metadata.get("generateName", "") + "..."
        what = f"cannot create {resource.kind} {name!r}"
        if answer.status == HTTPStatus.CONFLICT:
            hint = "choose another name, or delete the one that is there"
            raise CliError(what, str(_status(answer).get("message", "")), hint=hint, code=Exit.CONFLICT)
        return _without_noise(self._checked(answer, what, resource))

    def patch(self, resource: Resource, name: str, change: Mapping[str, Any]) -> Object:
        """Merge a change into an object.

        Raises:
            CliError: it was refused, or there is no such object.
        """
        path = f"{resource.path(self.namespace, name)}?fieldManager=taskflow&fieldValidation=Strict"
        answer = self._transport.request("PATCH", path, json.dumps(change).encode(), _MERGE)
        return _without_noise(self._checked(answer, f"cannot change {resource.kind} {name!r}", resource))

    def delete(self, resource: Resource, name: str) -> None:
        """Delete an object.

        Raises:
            CliError: it was refused, or there is no such object.
        """
        answer = self._transport.request("DELETE", resource.path(self.namespace, name))
        self._checked(answer, f"cannot delete {resource.kind} {name!r}", resource)

    def watch(self, resource: Resource, name: str, version: str, seconds: float) -> Iterator[tuple[str, Object]]:
        """Changes of one object after a resource version, for at most `seconds`: pairs of ADDED, MODIFIED or DELETED
        and the object. Without a name, changes of all in the namespace.

        Raises:
            WatchExpiredError: the version is too old.
            CliError: the watch was refused, or broke.
        """
        query = {
            "watch": "1",
            **({"fieldSelector": f"metadata.name={name}"} if name else {}),
            "resourceVersion": version,
            "timeoutSeconds": str(max(1, int(seconds))),
        }
        path = f"{resource.path(self.namespace)}?{urlencode(query)}"
        try:
            for line in self._transport.lines(path, seconds + 5):
                try:
                    event = json.loads(line)
                except ValueError:
                    return  # Cut in the middle: whoever watches looks again.
                if event["type"] == "ERROR":
                    raise WatchExpiredError
                yield event["type"], _without_noise(event["object"])
        except Refused as refused:
            if refused.answer.status == HTTPStatus.GONE:
                raise WatchExpiredError from None
            self._checked(refused.answer, f"cannot watch {resource.plural}", resource)

    def version(self, resource: Resource) -> str:
        """The resource version that a watch of the namespace can begin at."""
        return str(self.raw(f"{resource.path(self.namespace)}?limit=1")["metadata"]["resourceVersion"])

    def raw(self, path: str) -> Object:
        """What a path answers, e.g. /version.

        Raises:
            CliError: nothing, or a refusal.
        """
        return self._checked(self._transport.request("GET", path), f"cannot read {path}", None)

    def _similar(self, resource: Resource, name: str) -> str:
        hint = f"see: taskflow {_LISTS[resource.plural]} -n {self.namespace}"
        try:
            names = [each["metadata"]["name"] for each in self.list(resource, limit=PAGE)]
        except CliError:
            return hint
        close = get_close_matches(name, names, 3)
        return f"did you mean {' or '.join(close)}?\n{hint}" if close else hint

    def _checked(self, answer: Answer, what: str, resource: Resource | None) -> Object:
        if answer.status < HTTPStatus.MULTIPLE_CHOICES:
            try:
                content = json.loads(answer.body)
            except ValueError:
                raise CliError(what, "the answer is no JSON; is the server of this context an API server?") from None
            return dict(content)
        raise _refusal(answer, what, resource)


def _refusal(answer: Answer, what: str, resource: Resource | None) -> CliError:
    status = _status(answer)
    message = str(status.get("message") or "").strip() or answer.body[:200].decode(errors="replace").strip()
    code, hint = _CODES.get(answer.status), _HINTS.get(answer.status, "")
    if resource and answer.status == HTTPStatus.NOT_FOUND and not status.get("details", {}).get("name"):
        # The path itself is unknown: the kind is not served.
        message = f"the cluster does not serve {resource.qualified}"
        hint = "is TaskFlow installed there, and is this the right context? see: kubectl config get-contexts"
        code = Exit.UNREACHABLE
    elif answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR or answer.status == HTTPStatus.TOO_MANY_REQUESTS:
        code = Exit.UNREACHABLE
    return CliError(what, _causes(status, message), hint=hint, code=code or Exit.ERROR)


def _causes(status: Mapping[str, Any], message: str) -> str:
    causes = [each for each in status.get("details", {}).get("causes") or () if each.get("field")]
    if status.get("reason") != "Invalid" or not causes:
        return message
    return "; ".join(f"{each['field']}: {each.get('message', '')}" for each in causes)


def _status(answer: Answer) -> dict[str, Any]:
    try:
        content = json.loads(answer.body)
    except ValueError:
        return {}
    return content if isinstance(content, dict) and isinstance(content.get("details") or {}, dict) else {}


def _without_noise(found: Object) -> Object:
    found.get("metadata", {}).pop("managedFields", None)
    return found
