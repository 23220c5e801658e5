"""Phases of a Task, and the reasons of its conditions."""

from __future__ import annotations

from enum import StrEnum


class Phase(StrEnum):
    """Printable summary of a Task. Conditions carry the contract; terminal phases are final."""

    PENDING = "Pending"
    """Not queued; a condition says why."""
    SUSPENDED = "Suspended"
    """Not queued, because the user suspended it."""
    QUEUED = "Queued"
    """Waits for a worker."""
    RUNNING = "Running"
    """A worker holds its lease."""
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    CANCELLED = "Cancelled"

    @property
    def terminal(self) -> bool:
        """Final: the phase does not change any more."""
        return self in (Phase.SUCCEEDED, Phase.FAILED, Phase.CANCELLED)


OPEN_SELECTOR = ",".join(f"status.phase!={phase}" for phase in Phase if phase.terminal)
"""Field selector of the Tasks that still need work; a Task without status matches."""
FINISHED_SELECTOR = ",".join(["status.phase!=", *(f"status.phase!={phase}" for phase in Phase if not phase.terminal)])
"""Field selector of the Tasks that need no more work."""


class Reason(StrEnum):
    """Why a Task is in its phase: the closed list of condition reasons."""

    VALID = "Valid"
    """Accepted: the specification can be run."""
    INVALID_SPEC = "InvalidSpec"
    """The specification has a value that the API server accepts and TaskFlow cannot read, such as an impossible date.
    Final."""
    PAYLOAD_TOO_LARGE = "PayloadTooLarge"
    """args and kwargs together exceed the inline limit. Final."""
    SUSPENDED = "Suspended"
    """`spec.suspend` is true."""
    NOT_BEFORE = "NotBefore"
    """`spec.notBefore` is in the future."""
    DEPENDENCY_WAITING = "DependencyWaiting"
    """A Task named in `spec.dependsOn` has not finished, or does not exist yet."""
    DEPENDENCY_FAILED = "DependencyFailed"
    """A Task named in `spec.dependsOn` did not end as required. Final."""
    DEPENDENCY_CYCLE = "DependencyCycle"
    """The Task depends on itself, through others. Final."""
    PAYLOAD_TOO_DEEP = "PayloadTooDeep"
    """args or kwargs are nested deeper than 50 levels. Final."""
    NO_WORKER_POOL = "NoWorkerPool"
    """No WorkerPool in the namespace serves the queue."""
    WAITING_FOR_WORKER = "WaitingForWorker"
    """In its queue; no worker has taken it yet."""
    BACKING_OFF = "BackingOff"
    """The last attempt failed; the next one is delayed."""
    STARTED = "Started"
    """A worker runs it."""
    SUCCEEDED = "Succeeded"
    """The handler returned and its result and outputs are stored."""
    UNKNOWN_HANDLER = "UnknownHandler"
    """The worker has no handler of this name. While a WorkerPool of the queue is rolled out (at most 10 minutes), and
    for 30 seconds in any case, the attempt goes back into its queue and does not count. Then final."""
    INVALID_ARGUMENTS = "InvalidArguments"
    """args or kwargs do not fit the handler's signature. Final."""
    INPUT_MISSING = "InputMissing"
    """An input object does not exist. Final."""
    OUTPUT_MISSING = "OutputMissing"
    """The handler returned without writing a declared output. Final."""
    RESULT_NOT_SERIALISABLE = "ResultNotSerialisable"
    """The handler's result cannot be written as JSON. Final."""
    RESULT_TOO_LARGE = "ResultTooLarge"
    """The result is larger than 64 MiB, or cannot be stored as an object because an output has its name. Final."""
    HANDLER_ERROR = "HandlerError"
    """The handler raised."""
    STORAGE_UNAVAILABLE = "StorageUnavailable"
    """The object store was unavailable for longer than a worker waits."""
    WORKER_ERROR = "WorkerError"
    """The worker failed outside of the handler, for lack of file descriptors for example."""
    WORKER_LOST = "WorkerLost"
    """The worker died or stopped renewing its lease."""
    OUT_OF_MEMORY = "OutOfMemory"
    """The kernel killed the process or the container that ran it, because its memory limit was used up."""
    EVICTED = "Evicted"
    """The node of the worker's pod evicted it."""
    PREEMPTED = "Preempted"
    """The scheduler removed the worker's pod in favour of another one."""
    NODE_LOST = "NodeLost"
    """The node of the worker's pod is gone or does not report."""
    POD_DELETED = "PodDeleted"
    """The worker's pod was deleted, and the worker had no time to hand the attempt back."""
    POISON_TASK = "PoisonTask"
    """Several different workers in a row died while they ran it: as many as the operator's setting
    `TASKFLOW_MAX_LOST_WORKERS` says. So it ends, whatever `maxAttempts` allows. Final."""
    CANCELLED = "Cancelled"
    """`spec.cancel` is true, or the Task is being deleted. Final."""
    QUEUE_TIMEOUT = "QueueTimeout"
    """No worker took it within `spec.queueTimeoutSeconds`. Final."""
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    """All attempts together lasted longer than `spec.activeDeadlineSeconds`. Final."""
    ATTEMPT_TIMEOUT = "AttemptTimeout"
    """The attempt lasted longer than `spec.attemptTimeoutSeconds`."""
    NOT_RETRYABLE = "NotRetryable"
    """The handler raised `NonRetryable`. Final."""
    BROKER_DATA_LOST = "BrokerDataLost"
    """Redis lost its data while the attempt ran, and no worker entered it again."""
    DRAIN = "Drain"
    """A stopping worker handed the attempt back; it does not count."""
    AGAIN = "Again"
    """The handler raised `Again`: the next attempt starts when it asked for, and this one does not count."""
    TOO_MANY_CONTINUATIONS = "TooManyContinuations"
    """The handler raised `Again` more than 10,000 times. Final."""
    AGAIN_IN_ARRAY = "AgainInArray"
    """The handler raised `Again` for an item of an array, which cannot wait alone. Final for the item."""

    ALREADY_RAN = "AlreadyRan"
    """A Task of this name did the same work before, and `spec.rerun` says not to do it again: nothing was run. The
    phase is Succeeded, with the former result, if the former Task succeeded, otherwise Failed. Final."""
    HISTORY_UNAVAILABLE = "HistoryUnavailable"
    """PostgreSQL does not answer. An array needs it, since it has what has ended of the array, and so does a Task with
    `spec.rerun`, since it has what ran before. They go on when PostgreSQL is back."""
    ITEMS_INVALID = "ItemsInvalid"
    """The object of `spec.array.itemsFrom` cannot be read as its format says, or has too many items. Final."""
    ITEMS_FAILED = "ItemsFailed"
    """All items of the array ended, and some of them failed. Final."""
    TOO_MANY_FAILURES = "TooManyFailures"
    """More items of the array failed than `spec.array.maxFailures`. Final."""

    @property
    def worker_died(self) -> bool:
        """The attempt ended because its worker died, and the attempt may be why."""
        return self in _DEATHS

    @property
    def final(self) -> bool:
        """Another attempt would end the same way, so there is none."""
        return self in _FINAL


MORE_MEMORY = (
    "raise the memory limit of the container worker, lower the pool's concurrency, or give the Task a pod of its own "
    "with isolation: Pod"
)
"""What to do about `OutOfMemory`, for people."""
_DEATHS = frozenset({Reason.WORKER_LOST, Reason.OUT_OF_MEMORY})
_FINAL = frozenset(
    {
        Reason.POISON_TASK,
        Reason.INVALID_SPEC,
        Reason.PAYLOAD_TOO_LARGE,
        Reason.DEPENDENCY_FAILED,
        Reason.DEPENDENCY_CYCLE,
        Reason.CANCELLED,
        Reason.QUEUE_TIMEOUT,
        Reason.DEADLINE_EXCEEDED,
        Reason.NOT_RETRYABLE,
        Reason.PAYLOAD_TOO_DEEP,
        Reason.UNKNOWN_HANDLER,
        Reason.INVALID_ARGUMENTS,
        Reason.INPUT_MISSING,
        Reason.OUTPUT_MISSING,
        Reason.RESULT_NOT_SERIALISABLE,
        Reason.RESULT_TOO_LARGE,
        Reason.ITEMS_INVALID,
        Reason.ITEMS_FAILED,
        Reason.TOO_MANY_FAILURES,
        Reason.TOO_MANY_CONTINUATIONS,
        Reason.AGAIN_IN_ARRAY,
        Reason.ALREADY_RAN,
    }
)
