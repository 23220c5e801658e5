from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from taskflow_core.domain.phases import Reason
from taskflow_worker.process.shared_slots import SharedSlots, Slot
from taskflow_worker.process.slot_stop import SOFT_SIGNAL, SlotStop
from taskflow_worker.sdk.failures import Stopped
from taskflow_worker.sdk.stop import FixedStop

MEMBER = "a:1"


@pytest.fixture
def slot() -> Iterator[Slot]:
    before = signal.getsignal(SOFT_SIGNAL)
    slot = SharedSlots(1).slot(0)
    slot.begin(os.getpid(), MEMBER, None)
    yield slot
    signal.signal(SOFT_SIGNAL, before)


def ping() -> None:
    os.kill(os.getpid(), SOFT_SIGNAL)
    # Python runs the signal handler between two bytecodes of this thread.
    sum(range(1000))


def test_a_stop_request_is_visible(slot: Slot) -> None:
    stop = SlotStop(slot, MEMBER)
    assert stop.requested() is None
    slot.request_stop(MEMBER, Reason.CANCELLED)
    assert stop.requested() is Reason.CANCELLED


def test_a_timeout_interrupts_the_handler(slot: Slot) -> None:
    stop = SlotStop(slot, MEMBER)
    slot.request_stop(MEMBER, Reason.ATTEMPT_TIMEOUT)
    with pytest.raises(Stopped), stop.interrupts(Stopped):
        ping()


def test_it_interrupts_once(slot: Slot) -> None:
    stop = SlotStop(slot, MEMBER)
    slot.request_stop(MEMBER, Reason.ATTEMPT_TIMEOUT)
    with stop.interrupts(Stopped):
        with pytest.raises(Stopped):
            ping()
        ping()


def test_the_error_is_the_one_that_the_handler_expects(slot: Slot) -> None:
    stop = SlotStop(slot, MEMBER)
    slot.request_stop(MEMBER, Reason.ATTEMPT_TIMEOUT)
    with pytest.raises(TimeoutError), stop.interrupts(TimeoutError):
        ping()


@pytest.mark.parametrize("reason", [Reason.CANCELLED, Reason.DEADLINE_EXCEEDED, Reason.WORKER_LOST])
def test_only_a_timeout_interrupts(slot: Slot, reason: Reason) -> None:
    stop = SlotStop(slot, MEMBER)
    slot.request_stop(MEMBER, reason)
    with stop.interrupts(Stopped):
        ping()


def test_a_signal_for_the_previous_attempt_does_nothing(slot: Slot) -> None:
    stop = SlotStop(slot, MEMBER)
    slot.request_stop("previous:1", Reason.ATTEMPT_TIMEOUT)
    with stop.interrupts(Stopped):
        ping()
        # Its own timeout still interrupts it.
        slot.request_stop(MEMBER, Reason.ATTEMPT_TIMEOUT)
        with pytest.raises(Stopped):
            ping()


def test_the_workers_own_code_is_not_interrupted(slot: Slot) -> None:
    stop = SlotStop(slot, MEMBER)
    slot.request_stop(MEMBER, Reason.ATTEMPT_TIMEOUT)
    ping()
    assert stop.requested() is Reason.ATTEMPT_TIMEOUT


def test_a_fixed_stop_has_the_given_reason() -> None:
    assert FixedStop().requested() is None
    assert FixedStop(Reason.CANCELLED).requested() is Reason.CANCELLED
