"""Shared memory between the main process and its runners: what each runner runs, and whether it must stop."""

from __future__ import annotations

import hashlib
import mmap
import os
import struct
import time
from collections.abc import Callable

from taskflow_core.domain.phases import Reason

_REASONS = tuple(Reason)
_SLOT_BYTES = 48
_RUNNER, _CURRENT, _TIMEOUT, _STOP_MEMBER, _STOP_REASON, _TERMINATING, _ENDED = 0, 8, 16, 24, 32, 33, 40
"""Offsets of the fields of a slot."""
_DIGEST_BYTES = 8
_IDLE = bytes(_DIGEST_BYTES)
_POLL_SECONDS = 0.01
_MAX_TERMINATION_SECONDS = 60.0
"""How long a runner waits to be terminated: longer than the main process ever needs to decide."""


class Slot:
    """The shared state of one runner, which is a process or a thread of the pool, and the main process.

    The runner writes what it runs, the main process writes its requests. Each request names an attempt, so that it
    never hits the next one.

    Termination is free of races by the order of the writes. The main process first marks the attempt as terminating and
    then checks that it still runs. The runner first writes that the attempt ended and then checks for the mark. At
    least one of them sees the other, so a runner is never killed or given up for an attempt that it has finished.
    """

    def __init__(self, memory: mmap.mmap, offset: int) -> None:
        self._memory = memory
        self._offset = offset

    def register(self, runner: int) -> None:
        """Runner: it exists and runs nothing, whatever the runner before it ran when it died."""
        self._put(_CURRENT, _IDLE)
        self._put(_RUNNER, struct.pack("<Q", runner))

    def begin(self, runner: int, member: str, timeout_at: float | None) -> None:
        """Runner: start this attempt, which times out at that moment of the monotonic clock."""
        self._put(_TERMINATING, b"\0")
        self._put(_STOP_REASON, b"\0")
        self._put(_TIMEOUT, struct.pack("<d", timeout_at or 0.0))
        self._put(_RUNNER, struct.pack("<Q", runner))
        self._put(_CURRENT, _digest(member))

    def restart_timeout(self, timeout_at: float) -> None:
        """Runner: the running attempt times out at that moment instead."""
        self._put(_TIMEOUT, struct.pack("<d", timeout_at))

    def end(self, member: str, sleep: Callable[[float], None] = time.sleep) -> None:
        """Runner: the attempt ended. While it is being terminated, wait until the mark is cleared or the kill comes."""
        self._put(_ENDED, _digest(member))
        self._put(_CURRENT, _IDLE)
        waited = 0.0
        while self._get(_TERMINATING, 1) != b"\0" and self._get(_STOP_MEMBER, _DIGEST_BYTES) == _digest(member):
            if waited > _MAX_TERMINATION_SECONDS:
                return
            sleep(_POLL_SECONDS)
            waited += _POLL_SECONDS

    def stop_requested(self, member: str) -> Reason | None:
        """Runner: why the attempt must stop, or None."""
        code = self._get(_STOP_REASON, 1)[0]
        if not code or self._get(_STOP_MEMBER, _DIGEST_BYTES) != _digest(member):
            return None
        return _REASONS[code - 1]

    def runs(self, runner: int, member: str) -> bool:
        """Main process: whether that runner runs that attempt."""
        return self.runner == runner and self._get(_CURRENT, _DIGEST_BYTES) == _digest(member)

    def ended(self, runner: int, member: str) -> bool:
        """Main process: whether that attempt is the last that ended in that runner, and it has begun no other."""
        if self.runner != runner or self._get(_CURRENT, _DIGEST_BYTES) != _IDLE:
            return False
        return self._get(_ENDED, _DIGEST_BYTES) == _digest(member)

    @property
    def occupied(self) -> bool:
        """Main process: whether an attempt runs. A killed runner writes no end, so check that it is alive."""
        if self._get(_CURRENT, _DIGEST_BYTES) == _IDLE:
            return False
        try:
            os.kill(self.runner, 0)
        except ProcessLookupError:
            return False
        return True

    @property
    def timeout_at(self) -> float | None:
        """Main process: when the attempt times out, by the monotonic clock."""
        (value,) = struct.unpack("<d", self._get(_TIMEOUT, 8))
        return value or None

    def request_stop(self, member: str, reason: Reason) -> None:
        """Main process: tell the attempt to stop."""
        self._put(_STOP_REASON, b"\0")
        self._put(_STOP_MEMBER, _digest(member))
        self._put(_STOP_REASON, bytes([_REASONS.index(reason) + 1]))

    def mark_terminating(self, member: str) -> None:
        """Main process: announce that the attempt's runner is about to be killed or given up."""
        self._put(_STOP_MEMBER, _digest(member))
        self._put(_TERMINATING, b"\1")

    def clear_terminating(self) -> None:
        """Main process: let the runner continue."""
        self._put(_TERMINATING, b"\0")

    @property
    def runner(self) -> int:
        """Main process: the runner that registered last. 0 if there was none."""
        (runner,) = struct.unpack("<Q", self._get(_RUNNER, 8))
        return int(runner)

    def _get(self, field: int, length: int) -> bytes:
        start = self._offset + field
        return self._memory[start : start + length]

    def _put(self, field: int, value: bytes) -> None:
        start = self._offset + field
        self._memory[start : start + len(value)] = value


class SharedSlots:
    """One slot for each runner, in memory that pool processes inherit from the main process by fork."""

    def __init__(self, count: int) -> None:
        memory = mmap.mmap(-1, count * _SLOT_BYTES)
        self._slots = tuple(Slot(memory, index * _SLOT_BYTES) for index in range(count))

    def slot(self, index: int) -> Slot:
        """The slot of a runner, by its index in the pool."""
        return self._slots[index]

    def occupied(self) -> int:
        """The number of runners that run an attempt."""
        return sum(slot.occupied for slot in self._slots)

    def runners(self) -> set[int]:
        """All runners that registered and were not replaced."""
        return {slot.runner for slot in self._slots} - {0}

    def find(self, runner: int, member: str) -> Slot | None:
        """The slot of the runner that runs this attempt. None if it does not run it, or not yet."""
        return next((slot for slot in self._slots if slot.runs(runner, member)), None)

    def ended(self, runner: int, member: str) -> bool:
        """See `Slot.ended`."""
        return any(slot.ended(runner, member) for slot in self._slots)


def _digest(member: str) -> bytes:
    return hashlib.blake2b(member.encode(), digest_size=_DIGEST_BYTES).digest()
