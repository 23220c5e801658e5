"""Names that more than one component must agree on."""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from taskflow_core.errors import Invalid

GROUP = "taskflow.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
FIELD_MANAGER = "taskflow-operator"

ANNOTATION_TRACEPARENT = f"{GROUP}/traceparent"
ANNOTATION_REQUEST = f"{GROUP}/request-sha256"
"""Fingerprint of the REST request that created the Task, if it had an idempotency key."""
ANNOTATION_RETRIED_FROM = f"{GROUP}/retried-from"
"""Uid of the finished Task that this one is a copy of."""
LABEL_SCHEDULE = f"{GROUP}/schedule"
"""On a Task: name of the TaskSchedule that it is a run of."""
ANNOTATION_SCHEDULED_TIME = f"{GROUP}/scheduled-time"
"""On a run of a TaskSchedule: its tick, as RFC 3339 in UTC with whole seconds."""
ANNOTATION_BACKFILL = f"{GROUP}/backfill"
"""On a run of a TaskSchedule: name of the backfill that created it."""
ANNOTATION_RUN_NOW = f"{GROUP}/run-now"
"""On a TaskSchedule: a token, each new value of which asks for a run at once. On that run: the same token."""
ANNOTATION_LOGIN = f"workers.{GROUP}/login"
"""On a WorkerPool: since when its namespace has its login; workers that were started before hold an older one. Of
`taskflow.dev/` itself Kopf sees no change, since it keeps its own notes there."""
LABEL_WORKERS = f"{GROUP}/workers"
"""On a Namespace: with the value `WORKERS_ENABLED`, its workers get their own logins."""
WORKERS_ENABLED = "enabled"
LABEL_POOL = f"{GROUP}/pool"
LABEL_TASK_UID = f"{GROUP}/task-uid"
LABEL_ATTEMPT = f"{GROUP}/attempt"
LABEL_MANAGED_BY = "app.kubernetes.io/managed-by"
MANAGED_BY = "taskflow-operator"
WORKER_SECRET = "taskflow-worker"  # noqa: S105 - the name of a Secret, not a secret
WORKER_CONTAINER = "worker"

CELERY_TASK = "taskflow.run"

KEY_EPOCH = "tf:epoch"
"""Names the life of all data: when it is gone, Redis is new or lost everything."""
KEY_OPERATOR = "tf:operator"
KEY_NAMESPACES = "tf:namespaces"
"""Set of the namespaces that have keys."""
KEY_API_PREFIX = "tfapi:"
"""Prefix of keys of the REST API: no state of a Task, and nothing whose loss matters."""

UID = r"[A-Za-z0-9-]{1,64}"
"""Pattern of a `metadata.uid`."""
PLACE = r"[1-9][0-9]{0,5}(:(-1|0|[1-9][0-9]{0,8}))?"
"""Pattern of a `place`."""
_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")

PRIORITY_STEPS = (0, 3, 6, 9)
"""Celery's four priority lists on Redis, where 0 is served first."""
PRIORITY_SEPARATOR = "\x06\x16"


def check_namespace(name: str) -> None:
    """Check a name before it becomes part of a rule, in which a `*` would stand for all namespaces.

    Raises:
        Invalid: it is no name that Kubernetes admits.
    """
    if not _NAMESPACE.fullmatch(name):
        raise Invalid(f"expected the name of a namespace (small letters, digits, '-'), found {name!r}")


def place(attempt: int, chunk: int | None = None) -> str:
    """An attempt within its Task: `attempt`, or `attempt:chunk` in an array, where each chunk is an attempt of its
    own.
    """
    return str(attempt) if chunk is None else f"{attempt}:{chunk}"


def split_place(value: str) -> tuple[int, int | None]:
    """The attempt and chunk of a `place`.

    Raises:
        ValueError: it is not one.
    """
    attempt, colon, chunk = value.partition(":")
    return int(attempt), int(chunk) if colon else None


def member(uid: str, attempt: int, chunk: int | None = None) -> str:
    """Identity of one attempt: member of ledger and leases, and id of its Celery message."""
    return f"{uid}:{place(attempt, chunk)}"


def split_member(value: str) -> tuple[str, int, int | None]:
    """The uid, attempt and chunk of a `member`.

    Raises:
        ValueError: it is not one.
    """
    uid, colon, where = value.partition(":")
    if not uid or not colon:
        raise ValueError(f"expected uid:attempt or uid:attempt:chunk, found {value!r}")
    return uid, *split_place(where)


@dataclass(frozen=True)
class UnackedKeys:
    """Redis keys in which kombu keeps what it delivered until it is acknowledged."""

    messages: str
    index: str
    mutex: str


class NamespaceKeys:
    """Redis keys of one namespace: all that its workers may touch, and what the operator keeps for it.

    The namespace is a hash tag, so that one node of a cluster has all of them.
    """

    def __init__(self, namespace: str) -> None:
        base = f"tf:{{{namespace}}}:"
        self.epoch = f"{base}epoch"
        self.ledger = f"{base}led"
        self.leases = f"{base}lease"
        self.events = f"{base}ev"
        """Stream that workers write."""
        self.notes = f"{base}op"
        """Stream that only the operator writes."""
        self.unmirrored = f"{base}unmirrored"
        """There while the history may lack what the streams lost."""
        self.stops = f"{base}stop"
        self.workers = f"{base}workers"
        self.intake = f"{base}intake"
        self.claim_prefix = f"{base}cl:"
        self.once_prefix = f"{base}once:"
        self.array_prefix = f"{base}arr:"
        self.unacked = UnackedKeys(f"{base}unacked", f"{base}unacked:index", f"{base}unacked:mutex")

    def claim(self, uid: str, attempt: int, chunk: int | None = None) -> str:
        """Who holds or held the attempt."""
        return self.claim_prefix + member(uid, attempt, chunk)

    def array(self, uid: str) -> str:
        """What an array has handed out and not yet settled."""
        return self.array_prefix + uid

    def once(self, uid: str, attempt: int) -> str:
        """The message for a pod that runs nothing else."""
        return self.once_prefix + member(uid, attempt)


@lru_cache(maxsize=4096)
def keys_of(namespace: str) -> NamespaceKeys:
    """The keys of a namespace."""
    return NamespaceKeys(namespace)


def broker_queue(namespace: str, queue: str) -> str:
    """Celery's queue for a Task's queue. Queues of two namespaces never mix; a namespace has no dot."""
    return f"{namespace}.{queue}"


def broker_priority(priority: int) -> int:
    """Celery's priority (0 first) for a Task's (9 first)."""
    return 9 - priority


def broker_list(namespace: str, queue: str, priority: int) -> str:
    """Redis list in which kombu keeps the messages of this queue and Task priority.

    kombu's Redis transport appends the highest step that is not above the priority; step 0 has the plain name.
    """
    step = max(step for step in PRIORITY_STEPS if step <= broker_priority(priority))
    name = broker_queue(namespace, queue)
    return f"{name}{PRIORITY_SEPARATOR}{step}" if step else name


def queue_lists(namespace: str, queues: Iterable[str]) -> list[str]:
    """Redis lists of all priorities of these queues; of one queue in the order in which they are served."""
    return [broker_list(namespace, queue, priority) for queue in queues for priority in (9, 6, 3, 0)]


def object_prefix(namespace: str) -> str:
    """Prefix of all objects of a namespace; the `key` of an input is below it."""
    return f"{namespace}/"


def attempt_prefix(namespace: str, uid: str, attempt: int) -> str:
    """Where one attempt writes its outputs, so that a fenced attempt never overwrites the one that counts."""
    return f"{namespace}/{uid}/{attempt}/"


def chunk_prefix(namespace: str, uid: str, attempt: int, chunk: int) -> str:
    """Where one chunk of an array writes."""
    return f"{attempt_prefix(namespace, uid, attempt)}chunks/{chunk}/"


def log_prefix(namespace: str, uid: str, attempt: int) -> str:
    """Prefix of the log of one attempt, which is stored in numbered chunks."""
    return attempt_prefix(namespace, uid, attempt) + "logs/"


def attempt_token(key: str, namespace: str, uid: str, attempt: int, chunk: int | None = None) -> str:
    """128-bit token that proves that an event belongs to a message which the operator sent (HMAC-SHA256, truncated).

    Derived, so that a restarted operator knows the tokens of what is in flight without having stored them. The
    namespace is part of it: a token says whose Task it is.
    """
    text = f"{namespace}/{member(uid, attempt, chunk)}"
    return hmac.digest(key.encode(), text.encode(), "sha256").hex()[:32]
