"""An API server in memory, for commands that are run in this process."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from taskflow_cli.__main__ import main
from taskflow_cli.cluster.kubeconfig import Access
from taskflow_cli.cluster.transport import Answer, Headers, Transport
from taskflow_cli.options import Surroundings
from taskflow_cli.output.tables import Screen

NOW = datetime(2026, 11, 30, 12, 0, tzinfo=UTC)
PLURALS = {"Task": "tasks", "WorkerPool": "workerpools", "TaskSchedule": "taskschedules", "Event": "events"}
KUBE = "https://kube.test:6443"
KUBECONFIG = """
clusters: [{name: here, cluster: {server: "https://kube.test:6443"}}]
users: [{name: me, user: {token: secret-token}}]
contexts:
- {name: dev, context: {cluster: here, user: me, namespace: team}}
- {name: prod, context: {cluster: here, user: me}}
current-context: dev
"""
Object = dict[str, Any]


def ago(**units: float) -> str:
    return (NOW - timedelta(**units)).strftime("%Y-%m-%dT%H:%M:%SZ")


def task(name: str, *, namespace: str = "team", status: Object | None = None, **spec: Any) -> Object:
    meta = {"name": name, "namespace": namespace, "uid": f"uid-{name}", "creationTimestamp": ago(minutes=5)}
    body = {
        "apiVersion": "taskflow.dev/v1alpha1",
        "kind": "Task",
        "metadata": meta,
        "spec": {"handler": "reports.summarise", "queue": "default", **spec},
    }
    return body | ({"status": status} if status else {})


def pool(name: str, status: Object | None = None, **spec: Any) -> Object:
    meta = {"name": name, "namespace": "team", "uid": f"uid-{name}", "creationTimestamp": ago(days=3)}
    head = {"apiVersion": "taskflow.dev/v1alpha1", "kind": "WorkerPool"}
    return {**head, "metadata": meta, "spec": {"queues": ["default"], **spec}, "status": status or {}}


def schedule(name: str, status: Object | None = None, **spec: Any) -> Object:
    meta = {"name": name, "namespace": "team", "uid": f"uid-{name}", "creationTimestamp": ago(days=3)}
    head = {"apiVersion": "taskflow.dev/v1alpha1", "kind": "TaskSchedule"}
    whole = {"timeZone": "Etc/UTC", "taskTemplate": {"spec": {"handler": "a.b"}}, **spec}
    return {**head, "metadata": meta, "spec": whole, "status": status or {}}


@dataclass
class FakeServer:
    """Keeps objects by plural, namespace and name; watches give what was put into `later`."""

    objects: dict[tuple[str, str, str], Object] = field(default_factory=dict)
    requests: list[tuple[str, str]] = field(default_factory=list)
    later: list[Object] = field(default_factory=list)
    """What a watched Task becomes, one after the other."""
    refusals: dict[str, Answer] = field(default_factory=dict)
    """Answers by the beginning of `METHOD plural`."""
    version: int = 0
    after_patch: Callable[[Object], None] | None = None
    """What the operator does then."""

    def add(self, *found: Object) -> None:
        for each in found:
            plural = {"Task": "tasks", "WorkerPool": "workerpools", "TaskSchedule": "taskschedules", "Event": "events"}[
                each["kind"]
            ]
            self._keep(plural, each)

    def _keep(self, plural: str, body: Object) -> Object:
        self.version += 1
        meta = body["metadata"]
        meta["resourceVersion"] = str(self.version)
        self.objects[plural, meta["namespace"], meta["name"]] = body
        return copy.deepcopy(body)

    def request(
        self, method: str, path: str, body: bytes | None = None, content_type: str = "", more: Headers = ()
    ) -> Answer:
        url = urlsplit(path)
        self.requests.append((method, path))
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        if url.path == "/version":
            return answer(200, {"gitVersion": "v1.36.3"})
        if url.path == "/apis/taskflow.dev":
            return answer(200, {"versions": [{"version": "v1alpha1"}]})
        parts = [unquote(each) for each in url.path.split("/")[4:]]
        namespace = parts[1] if parts[0] == "namespaces" else ""
        plural, *rest = parts[2:] if namespace else parts
        for prefix, refusal in self.refusals.items():
            if f"{method} {plural}".startswith(prefix):
                return refusal
        return self._answer(method, plural, namespace, rest[0] if rest else "", query, json.loads(body or b"{}"))

    def _answer(
        self, method: str, plural: str, namespace: str, name: str, query: dict[str, str], body: Object
    ) -> Answer:
        if method == "POST":
            return self._create(plural, namespace, body, dry_run="dryRun" in query)
        if not name:
            return self._list(plural, namespace, query)
        found = self.objects.get((plural, namespace, name))
        if found is None:
            return status(404, "NotFound", f'{plural}.taskflow.dev "{name}" not found', name)
        if method == "DELETE":
            del self.objects[plural, namespace, name]
            return answer(200, {"kind": "Status", "status": "Success"})
        if method == "PATCH":
            return self._patch(plural, found, body)
        return answer(200, found)

    def _patch(self, plural: str, found: Object, body: Object) -> Answer:
        old, new = found["metadata"], body.get("metadata", {})
        if new.get("resourceVersion", old["resourceVersion"]) != old["resourceVersion"]:
            return status(409, "Conflict", "the object has been modified", old["name"])
        meta = {**old, "annotations": {**old.get("annotations", {}), **new.get("annotations", {})}}
        merged = {**found, "metadata": meta, "spec": {**found["spec"], **body.get("spec", {})}}
        answered = answer(200, self._keep(plural, merged))
        if self.after_patch is not None:
            self.after_patch(merged)
        return answered

    def _create(self, plural: str, namespace: str, body: Object, *, dry_run: bool) -> Answer:
        meta = body["metadata"]
        name = meta.get("name") or meta["generateName"] + "x7k2p"
        if (plural, namespace, name) in self.objects:
            return status(409, "AlreadyExists", f'{plural}.taskflow.dev "{name}" already exists', name)
        whole = {**body, "metadata": {**meta, "name": name, "namespace": namespace, "uid": f"uid-{name}"}}
        whole["metadata"]["creationTimestamp"] = ago(seconds=0)
        return answer(201, whole if dry_run else self._keep(plural, whole))

    def _list(self, plural: str, namespace: str, query: dict[str, str]) -> Answer:
        found = [
            each
            for (kind, there, _), each in sorted(self.objects.items())
            if kind == plural
            and namespace in ("", there)
            and _fits(query.get("labelSelector", ""), each["metadata"].get("labels") or {})
            and all(_field(each, path) == value for path, value in _pairs(query.get("fieldSelector", "")).items())
        ]
        start, size = int(query.get("continue", 0)), int(query["limit"])
        more = str(start + size) if start + size < len(found) else ""
        return answer(
            200,
            {
                "metadata": {"continue": more, "resourceVersion": str(self.version)},
                "items": found[start : start + size],
            },
        )

    def lines(self, path: str, seconds: float) -> Iterator[bytes]:
        self.requests.append(("WATCH", path))
        plural = urlsplit(path).path.rpartition("/")[2]
        while self.later:
            changed = self._keep(plural, self.later.pop(0))
            yield json.dumps({"type": "MODIFIED", "object": changed}).encode()


def _pairs(text: str) -> dict[str, str]:
    return dict(part.split("=", 1) for part in text.split(",") if part)


def _fits(selector: str, labels: dict[str, str]) -> bool:
    return all(labels.get(key) == value for key, value in _pairs(selector).items())


def _field(found: Object, path: str) -> Any:
    value: Any = found
    for part in path.split("."):
        value = (value or {}).get(part)
    return value


def answer(code: int, body: Object) -> Answer:
    return Answer(code, json.dumps(body).encode())


def status(code: int, reason: str, message: str, name: str = "", causes: list[Object] | None = None) -> Answer:
    details = {**({"name": name} if name else {}), **({"causes": causes} if causes else {})}
    return answer(code, {"kind": "Status", "reason": reason, "message": message, "details": details})


@dataclass
class FakeRest:
    """A REST API: answers by path and query, several ones one after the other."""

    answers: dict[str, list[Answer]] = field(default_factory=dict)
    requests: list[tuple[str, Headers]] = field(default_factory=list)

    def put(self, path: str, *answers: Answer | Object | bytes) -> None:
        whole = [each if isinstance(each, Answer) else Answer(200, _body(each)) for each in answers]
        self.answers[f"/v1/namespaces/{path}"] = whole

    def request(
        self, method: str, path: str, body: bytes | None = None, content_type: str = "", more: Headers = ()
    ) -> Answer:
        self.requests.append((path, tuple(more)))
        found = self.answers.get(path)
        if found is None:
            return problem(404, "not-found", f"{path} was not found")
        return found.pop(0) if len(found) > 1 else found[0]

    def lines(self, path: str, seconds: float) -> Iterator[bytes]:
        raise NotImplementedError


def _body(content: Object | bytes) -> bytes:
    return content if isinstance(content, bytes) else json.dumps(content).encode()


def problem(code: int, kind: str, detail: str, **more: Any) -> Answer:
    return answer(code, {"code": kind, "detail": detail, "requestId": "req-1", **more})


@dataclass(frozen=True)
class Ran:
    """What a command left."""

    code: int
    out: str
    err: str


@dataclass
class Console:
    """Runs commands against a fake server, as from a shell."""

    server: FakeServer
    kubeconfig: Path
    capsys: pytest.CaptureFixture[str]
    rest: FakeRest = field(default_factory=FakeRest)
    environ: dict[str, str] = field(default_factory=dict)
    screen: Screen = field(default_factory=Screen)
    accesses: list[Access] = field(default_factory=list)

    def __call__(self, *arguments: str) -> Ran:
        def connect(access: Access, seconds: float) -> Transport:
            self.accesses.append(access)
            return self.server if access.server == KUBE else self.rest

        environ = {"KUBECONFIG": str(self.kubeconfig), "HOME": str(self.kubeconfig.parent), **self.environ}
        surroundings = Surroundings(environ, connect, lambda: NOW, lambda: self.screen)
        code = main(arguments, surroundings)
        said = self.capsys.readouterr()
        return Ran(code, said.out, said.err)
