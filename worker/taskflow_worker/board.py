from __future__ import annotations

import hashlib
import mmap
import os
import struct
import time
from collections.abc import Callable

from taskflow_core.domain.phases import Reason

_REASONS = tuple(Reason)
_SLOT_BYTES = 40
_RUNNER, _CURRENT, _TIMEOUT, _WANTED, _CODE, _DOOMED = 0, 8, 16, 24, 32, 33
_DIGEST_BYTES = 8
_NOBODY = bytes(_DIGEST_BYTES)
_PAUSE = 0.01
_LONGEST_DOOM = 60.0
"""Seconds after which a runner stops to wait for its end: longer than the main process ever needs to decide."""


class Slot:
    """What one runner and the main process tell each other: which attempt runs, and whether it is to stop.

    The runner, a pool process or a thread, writes what it runs, the main process what it wants; each names the attempt, so that
    what was meant for one never hits the next. Before it kills or gives up, the main process first *dooms* the attempt and then
    looks whether it still runs; the runner first says that the attempt ended and then looks whether it was doomed. One of them sees
    the other, so a runner is never killed or given up for an attempt that it has left.
    """

    def __init__(self, memory: mmap.mmap, offset: int) -> None:
        self._memory = memory
        self._offset = offset

    def begin(self, runner: int, member: str, timeout_at: float | None) -> None:
        """Runner: it runs this attempt; its time is over at that moment of the monotonic clock."""
        self._put(_DOOMED, b"\0")
        self._put(_CODE, b"\0")
        self._put(_TIMEOUT, struct.pack("<d", timeout_at or 0.0))
        self._put(_RUNNER, struct.pack("<Q", runner))
        self._put(_CURRENT, _digest(member))

    def restart(self, timeout_at: float) -> None:
        """Pool process: the time of the attempt that runs is over at that moment, and not before."""
        self._put(_TIMEOUT, struct.pack("<d", timeout_at))

    def end(self, member: str, sleep: Callable[[float], None] = time.sleep) -> None:
        """Runner: the attempt ended. While it is doomed this waits: until it is spared, or its process is killed."""
        self._put(_CURRENT, _NOBODY)
        waited = 0.0
        while self._get(_DOOMED, 1) != b"\0" and self._get(_WANTED, _DIGEST_BYTES) == _digest(member):
            if waited > _LONGEST_DOOM:
                return
            sleep(_PAUSE)
            waited += _PAUSE

    def asked(self, member: str) -> Reason | None:
        """Runner: why the attempt is to stop, if it is."""
        code = self._get(_CODE, 1)[0]
        if not code or self._get(_WANTED, _DIGEST_BYTES) != _digest(member):
            return None
        return _REASONS[code - 1]

    def runs(self, runner: int, member: str) -> bool:
        """Main process: whether that runner runs that attempt."""
        return self._runner() == runner and self._get(_CURRENT, _DIGEST_BYTES) == _digest(member)

    @property
    def occupied(self) -> bool:
        """Main process: whether an attempt runs. One that was killed in the middle said no end, so its runner is looked for."""
        if self._get(_CURRENT, _DIGEST_BYTES) == _NOBODY:
            return False
        try:
            os.kill(self._runner(), 0)
        except ProcessLookupError:
            return False
        return True

    @property
    def timeout_at(self) -> float | None:
        """Main process: when the time of the attempt is over, by the monotonic clock."""
        (value,) = struct.unpack("<d", self._get(_TIMEOUT, 8))
        return value or None

    def ask(self, member: str, reason: Reason) -> None:
        """Main process: the attempt is to stop."""
        self._put(_CODE, b"\0")
        self._put(_WANTED, _digest(member))
        self._put(_CODE, bytes([_REASONS.index(reason) + 1]))

    def doom(self, member: str) -> None:
        """Main process: the runner of the attempt is about to be killed or given up."""
        self._put(_WANTED, _digest(member))
        self._put(_DOOMED, b"\1")

    def spare(self) -> None:
        """Main process: it may go on."""
        self._put(_DOOMED, b"\0")

    def _runner(self) -> int:
        (pid,) = struct.unpack("<Q", self._get(_RUNNER, 8))
        return int(pid)

    def _get(self, place: int, length: int) -> bytes:
        start = self._offset + place
        return self._memory[start : start + length]

    def _put(self, place: int, value: bytes) -> None:
        start = self._offset + place
        self._memory[start : start + len(value)] = value


class Board:
    """One slot for each runner, in memory that pool processes inherit from the main process by fork."""

    def __init__(self, slots: int) -> None:
        memory = mmap.mmap(-1, slots * _SLOT_BYTES)
        self._slots = tuple(Slot(memory, index * _SLOT_BYTES) for index in range(slots))

    def slot(self, index: int) -> Slot:
        """The slot of a runner, by its place in the pool."""
        return self._slots[index]

    def occupied(self) -> int:
        """How many runners run an attempt."""
        return sum(slot.occupied for slot in self._slots)

    def find(self, runner: int, member: str) -> Slot | None:
        """The slot of the runner that runs this attempt; None if it does not, or not yet."""
        return next((slot for slot in self._slots if slot.runs(runner, member)), None)


def _digest(member: str) -> bytes:
    return hashlib.blake2b(member.encode(), digest_size=_DIGEST_BYTES).digest()
