from typing import Any

from taskflow_core.domain.events import SEQUENCE, Event, EventKind
from taskflow_core.domain.phases import Phase, Reason

BASE_MS = 1_790_000_000_000
UID = "0b0e7d8e-5c0f-4a54-9a3a-0d5b8f6f7a01"


def event(kind: EventKind, number: int, *, uid: str = UID, attempt: int = 1, worker: str = "", **payload: Any) -> Event:
    return told(kind, number, payload, uid=uid, attempt=attempt, worker=worker)


def told(
    kind: EventKind, number: int, payload: dict[str, Any], *, uid: str = UID, attempt: int = 1, worker: str = ""
) -> Event:
    time_ms = BASE_MS + number
    return Event(
        id=f"{time_ms}-0", kind=kind, uid=uid, attempt=attempt, worker=worker, time_ms=time_ms, payload=payload
    )


def snapshot(kind: EventKind, number: int, *, uid: str = UID, attempt: int = 1, **fields: Any) -> Event:
    values: dict[str, Any] = {
        "namespace": "team-a",
        "name": f"task-{uid[:8]}",
        "created": "2026-09-20T12:00:00Z",
        "spec": {"handler": "reports.summarise", "kwargs": {"n": 1}, "queue": "default", "priority": 3},
        "phase": Phase.QUEUED.value,
        "reason": Reason.WAITING_FOR_WORKER.value,
        "attempt": attempt,
    }
    return told(kind, number, values | fields, uid=uid, attempt=attempt)


def story(uid: str = UID, *, first: int = 0, lost: int = 1) -> list[Event]:
    """Events of one Task in the order of the stream: `lost` attempts that failed, a retry each, then a success."""
    number = first
    stream: list[Event] = []
    started: dict[str, str] = {}

    def tell(made: Event) -> None:
        nonlocal number
        stream.append(made)
        number += 1

    tell(snapshot(EventKind.PENDING, number, uid=uid, phase="Pending", reason="NoWorkerPool"))
    for attempt in range(1, lost + 2):
        tell(snapshot(EventKind.QUEUED, number, uid=uid, attempt=attempt, **started))
        tell(event(EventKind.STARTED, number, uid=uid, attempt=attempt, worker=f"w-{attempt}"))
        started = started or {"startTime": "2026-09-21T12:00:00Z"}
        tell(event(EventKind.DUPLICATE, number, uid=uid, attempt=attempt, worker="w-other"))
        if attempt <= lost:
            failure = {"reason": "HandlerError", "type": "ValueError", "message": f"no {attempt}", "runMs": 5}
            tell(event(EventKind.FAILED, number, uid=uid, attempt=attempt, worker=f"w-{attempt}", **failure))
            waiting = {"phase": "Pending", "reason": "BackingOff", "message": f"no {attempt}"}
            made = snapshot(EventKind.SETTLED, number, uid=uid, attempt=attempt, **started, **waiting)
            tell(made.model_copy(update={"payload": made.payload | {"attempt": attempt + 1}}))
    last = lost + 1
    tell(event(EventKind.SUCCEEDED, number, uid=uid, attempt=last, worker=f"w-{last}", result={"rows": 3}, runMs=7))
    end = {"phase": "Succeeded", "reason": "Succeeded", "completionTime": "2026-09-21T12:00:09Z", "result": {"rows": 3}}
    tell(snapshot(EventKind.SETTLED, number, uid=uid, attempt=last, **started, **end))
    return stream


def order(made: Event) -> tuple[int, int]:
    return made.attempt, SEQUENCE[made.kind]
