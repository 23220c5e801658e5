"""In-memory ports of the API, and a client that calls its ASGI interface."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from fastapi import FastAPI

from taskflow_api.app import create_app
from taskflow_api.http.kubernetes_auth import KubernetesAuth
from taskflow_api.http.read_cache import ReadCache
from taskflow_api.http.services import Services
from taskflow_api.identity.accounts import ISSUER
from taskflow_api.identity.tokens import Tokens
from taskflow_api.identity.wiring import Identity
from taskflow_api.limits.limiter import Limiter
from taskflow_api.live.hub import Hub
from taskflow_api.wiring import Components
from taskflow_core.blobs.multipart import SentPart
from taskflow_core.blobs.store import ObjectInfo
from taskflow_core.errors import Conflict, NotFound
from taskflow_core.ledger.queue_view import QueuePosition
from tests.unit.taskflow_api.fake_history import CREATED, FakeHistory
from tests.unit.taskflow_api.identity import memory

UID = "0b0e7d8e-5c0f-4a54-9a3a-0d5b8f6f7a01"
TOKENS = {"alice-token": "alice", "bob-token": "bob"}


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class FakeKube:
    """An API server in which alice may do everything in team-a, and bob nothing. Keeps Tasks by path."""

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, Any]] = {}
        self.calls: list[tuple[str, str, Any]] = []
        self.failure: Exception | None = None
        self.fail_on = ""
        self.batches: list[list[dict[str, Any]] | Exception] = []
        """What a watch reports before it goes silent."""
        self.answers: dict[str, dict[str, Any]] = {"/version": {"gitVersion": "v1.36.3"}}
        self.most = 500
        """Objects of a page of a list by label."""
        self.allowed: dict[str, str] = {"alice": "team-a"}
        """By user, the namespace where it may do everything."""

    async def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        content_type: str = "application/json",
        params: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        self.calls.append((method, path, body))
        if self.failure and self.fail_on in path:
            raise self.failure
        if path in self.answers:
            return self.answers[path]
        if path.endswith("tokenreviews"):
            name = TOKENS.get(body["spec"]["token"])
            return {"status": {"authenticated": bool(name), "user": {"username": name or "", "groups": ["g"]}}}
        if path.endswith("subjectaccessreviews"):
            spec = body["spec"]
            allowed = self.allowed.get(spec["user"]) == spec["resourceAttributes"]["namespace"]
            return {"status": {"allowed": allowed}}
        if method == "PATCH" and path in self.objects:
            return self._patch(path, body)
        if method == "POST":
            meta = {"uid": UID, "namespace": path.split("/")[5], "creationTimestamp": "2026-09-20T12:00:00Z"}
            name = body["metadata"].get("name") or body["metadata"]["generateName"] + "abcde"
            if f"{path}/{name}" in self.objects:
                raise Conflict(f"tasks {name} already exists")
            made: dict[str, Any] = body | {"metadata": body["metadata"] | meta | {"name": name, "resourceVersion": "7"}}
            if (params or {}).get("dryRun") != "All":
                self.objects[f"{path}/{name}"] = made
            return made
        return self._found(method, path, params or {})

    def _found(self, method: str, path: str, params: Mapping[str, str]) -> dict[str, Any]:
        if path in self.objects:
            return self.objects.pop(path) if method == "DELETE" else self.objects[path]
        if method == "GET" and "labelSelector" in params:
            return self._labelled(path, **params)
        raise NotFound(f"{path} not found")

    def _labelled(self, path: str, labelSelector: str, limit: str, **others: str) -> dict[str, Any]:  # noqa: N803
        name, _, value = labelSelector.partition("=")
        start, end = int(others.get("continue", 0)), int(others.get("continue", 0)) + min(int(limit), self.most)
        found = [
            each
            for each_path, each in self.objects.items()
            if each_path.startswith(path + "/") and each["metadata"].get("labels", {}).get(name) == value
        ]
        return {"items": found[start:end], "metadata": {"continue": str(end)} if end < len(found) else {}}

    def _patch(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        found = self.objects[path]
        version = body.get("metadata", {}).get("resourceVersion")
        if version not in (None, found["metadata"]["resourceVersion"]):
            raise Conflict("the object has been modified")
        spec = {name: value for name, value in (found["spec"] | body.get("spec", {})).items() if value is not None}
        noted = found["metadata"].get("annotations", {}) | body.get("metadata", {}).get("annotations", {})
        meta = found["metadata"] | {"resourceVersion": "8"} | ({"annotations": noted} if noted else {})
        changed = found | {"spec": spec, "metadata": meta}
        self.objects[path] = changed
        return changed

    async def watch(
        self, path: str, version: str, field_selector: str = "", labels: str = ""
    ) -> AsyncIterator[Sequence[dict[str, Any]]]:
        self.calls.append(("WATCH", path, field_selector))
        yield ()
        for batch in self.batches:
            if isinstance(batch, Exception):
                raise batch
            yield batch
        await asyncio.Event().wait()


@dataclass
class FakeQueues:
    found: QueuePosition | None = None
    failure: Exception | None = None
    asked: list[tuple[str, str, int, str, int]] = field(default_factory=list)

    async def position(self, namespace: str, queue: str, priority: int, uid: str, attempt: int) -> QueuePosition | None:
        self.asked.append((namespace, queue, priority, uid, attempt))
        if self.failure:
            raise self.failure
        return self.found


@dataclass
class FakeMultipart:
    """Multipart uploads, without the content of their parts."""

    objects: "FakeObjects"
    open: dict[str, str] = field(default_factory=dict)

    def begin(self, key: str, content_type: str) -> str:
        self.open[f"u{len(self.open)}"] = key
        return f"u{len(self.open) - 1}"

    def check(self, key: str, upload: str) -> None:
        if self.open.get(upload) != key:
            raise NotFound("NoSuchUpload")

    def presigned_part(self, key: str, upload: str, number: int, *, seconds: int) -> str:
        return f"https://objects/{key}?uploadId={upload}&partNumber={number}&seconds={seconds}"

    def complete(self, key: str, upload: str, parts: Sequence[SentPart]) -> None:
        del self.open[upload]
        self.objects.stored[key] = b"x" * len(parts)

    def abort(self, key: str, upload: str) -> None:
        del self.open[upload]


@dataclass
class FakeObjects:
    failure: Exception | None = None
    copying: bool = False
    stored: dict[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.uploads = FakeMultipart(self)

    def multipart(self) -> Any:
        return self.uploads

    def links_can_copy(self) -> bool:
        self.check()
        return self.copying

    def head(self, key: str) -> ObjectInfo:
        self.check()
        if key not in self.stored:
            raise NotFound(f"object store: {key!r}: 404")
        return ObjectInfo(key, len(self.stored[key]), "e", CREATED, None)

    def delete(self, key: str) -> None:
        self.check()
        self.stored.pop(key, None)

    def list(self, prefix: str, *, start_after: str = "", limit: int = 1000) -> list[ObjectInfo]:
        self.check()
        keys = sorted(key for key in self.stored if key.startswith(prefix) and key > start_after)
        return [ObjectInfo(key, len(self.stored[key]), "", CREATED, None) for key in keys[:limit]]

    def get_range(self, key: str, start: int, length: int) -> bytes:
        self.check()
        return self.stored[key][start : start + length]

    def presigned_get(self, key: str, *, seconds: int, filename: str, content_type: str) -> str:
        return f"https://objects/{key}?seconds={seconds}&filename={filename}"

    def presigned_put(self, key: str, *, seconds: int) -> str:
        return f"https://objects/{key}?seconds={seconds}"

    def check(self) -> None:
        if self.failure:
            raise self.failure


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def unlimited() -> Limiter:
    """A limiter without limits."""
    return Limiter(None, caller_per_minute=0, namespace_per_minute=0, namespaces={})


class Api:
    """An application on fakes, and a client that needs no socket."""

    def __init__(
        self,
        audiences: tuple[str, ...] = (),
        *,
        register: bool = False,
        limiter: Limiter | None = None,
        cache: Any = None,
    ) -> None:
        self.kube = FakeKube()
        self.history = FakeHistory()
        self.objects = FakeObjects()
        self.clock = Clock()
        self.auth = KubernetesAuth(self.kube, audiences, self.clock)
        self.hub = Hub(self.kube, 3, 5)
        self.queues = FakeQueues()
        self.limiter = limiter or unlimited()
        self.time = memory.Time()
        self.keys, self.accounts = memory.MemoryKeys(), memory.MemoryAccounts()
        keys = memory.keys(self.kube, self.keys, self.time)
        accounts = memory.accounts(self.kube, self.accounts, self.time) if register else None
        issuers = {ISSUER: accounts.caller} if accounts else {}
        self.identity = identity = Identity(Tokens(self.auth.authenticate, keys.caller, issuers), keys, accounts)
        services = Services(
            self.kube,
            self.history,
            self.objects,
            self.auth,
            identity.tokens.authenticate,
            self.queues,
            ReadCache(cache, self.clock),
        )
        self.app: FastAPI = create_app(Components(services, identity, self.hub, self.limiter))

    async def call(
        self,
        method: str,
        url: str,
        body: Any = None,
        *,
        token: str = "alice-token",
        client: str = "test",
        **headers: str,
    ) -> Answer:
        """`body` is sent as JSON, bytes as they are; a header `x_request_id` is X-Request-Id."""
        raw = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        sent = {"content-type": "application/json"} if body is not None else {}
        if token:
            sent["authorization"] = f"Bearer {token}"
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        return await call(self.app, method, url, raw, sent, client)


async def call(
    app: Callable[..., Awaitable[None]],
    method: str,
    url: str,
    body: bytes,
    headers: Mapping[str, str],
    client: str = "test",
) -> Answer:
    path, _, query = url.partition("?")
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": unquote(path),
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
        "server": ("test", 80),
        "client": (client, 1),
    }
    chunks = [body[start : start + 65536] for start in range(0, len(body), 65536)] or [b""]
    messages: list[Any] = []

    async def receive() -> dict[str, Any]:
        if not chunks:
            # The client stays connected and sends nothing more.
            await asyncio.Event().wait()
        chunk = chunks.pop(0)
        return {"type": "http.request", "body": chunk, "more_body": bool(chunks)}

    async def send(message: Any) -> None:
        messages.append(message)

    await app(scope, receive, send)
    start = messages[0]
    answered = {name.decode().lower(): value.decode() for name, value in start["headers"]}
    return Answer(start["status"], answered, b"".join(message.get("body", b"") for message in messages[1:]))
