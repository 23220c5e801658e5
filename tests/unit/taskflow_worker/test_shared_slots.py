from __future__ import annotations

import os
import subprocess
import threading

import pytest

from taskflow_core.domain.phases import Reason
from taskflow_worker.process.shared_slots import SharedSlots
from tests.e2e.product import eventually


def test_a_running_attempt_is_found_by_its_process() -> None:
    slots = SharedSlots(2)
    slots.slot(1).begin(77, "a:1", 12.5)
    found = slots.find(77, "a:1")
    assert found is slots.slot(1)
    assert found.timeout_at == 12.5
    assert slots.find(77, "a:2") is None
    assert slots.find(78, "a:1") is None


def test_an_attempt_that_ended_is_not_found() -> None:
    slots = SharedSlots(1)
    slots.slot(0).begin(77, "a:1", None)
    slots.slot(0).end("a:1")
    assert slots.find(77, "a:1") is None


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_arrives(reason: Reason) -> None:
    slot = SharedSlots(1).slot(0)
    slot.begin(77, "a:1", None)
    assert slot.stop_requested("a:1") is None
    slot.request_stop("a:1", reason)
    assert slot.stop_requested("a:1") is reason


def test_a_stop_request_for_one_attempt_never_hits_the_next() -> None:
    slot = SharedSlots(1).slot(0)
    slot.begin(77, "a:1", None)
    slot.end("a:1")
    slot.begin(77, "b:1", None)
    slot.request_stop("a:1", Reason.CANCELLED)
    assert slot.stop_requested("b:1") is None


def test_a_new_attempt_starts_without_the_last_stop_request() -> None:
    slot = SharedSlots(1).slot(0)
    slot.begin(77, "a:1", None)
    slot.request_stop("a:1", Reason.CANCELLED)
    slot.begin(77, "a:1", None)
    assert slot.stop_requested("a:1") is None


def test_a_terminating_runner_waits_until_the_mark_is_cleared() -> None:
    slot = SharedSlots(1).slot(0)
    slot.begin(77, "a:1", None)
    slot.mark_terminating("a:1")
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        assert not slot.runs(77, "a:1"), "the main process must see that the attempt ended"
        waits.append(seconds)
        if len(waits) == 3:
            slot.clear_terminating()

    slot.end("a:1", sleep)
    assert len(waits) == 3


def test_a_runner_does_not_wait_for_ever_for_the_main_process() -> None:
    slot = SharedSlots(1).slot(0)
    slot.begin(77, "a:1", None)
    slot.mark_terminating("a:1")
    waits: list[float] = []
    slot.end("a:1", waits.append)
    assert 59 < sum(waits) < 61


def test_slots_do_not_touch_each_other() -> None:
    slots = SharedSlots(64)
    for index in range(64):
        slots.slot(index).begin(100 + index, f"a:{index}", float(index + 1))
    for index in range(64):
        assert slots.slot(index).runs(100 + index, f"a:{index}")
        assert slots.slot(index).timeout_at == index + 1


def test_a_slot_is_occupied_until_its_attempt_ended_or_its_process_is_gone() -> None:
    slots = SharedSlots(3)
    assert slots.occupied() == 0
    slots.slot(0).begin(os.getpid(), "a:1", None)
    slots.slot(2).begin(os.getpid(), "b:1", None)
    assert slots.occupied() == 2
    slots.slot(0).end("a:1")
    assert slots.occupied() == 1
    killed = subprocess.Popen(["true"])
    killed.wait()
    slots.slot(2).begin(killed.pid, "b:1", None)
    assert slots.occupied() == 0


def test_a_thread_occupies_its_slot_while_it_lives() -> None:
    slots, started, end = SharedSlots(1), threading.Event(), threading.Event()

    def work() -> None:
        slots.slot(0).begin(threading.get_native_id(), "a:1", None)
        started.set()
        end.wait(10)

    thread = threading.Thread(target=work)
    thread.start()
    assert started.wait(10)
    assert slots.occupied() == 1
    end.set()
    thread.join()
    # For Python the thread ends a moment earlier than for the kernel.
    eventually(slots.occupied, lambda count: count == 0, 10)


def test_a_new_runner_has_not_what_the_one_before_it_ran_when_it_died() -> None:
    slots = SharedSlots(2)
    slots.slot(0).begin(77, "a:1", None)
    slots.slot(0).register(os.getpid())
    assert slots.runners() == {os.getpid()}
    # Its first delivery may be refused. Then nothing else would free the slot.
    assert slots.occupied() == 0
    assert slots.find(77, "a:1") is None
