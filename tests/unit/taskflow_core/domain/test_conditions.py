from __future__ import annotations

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from taskflow_core.domain.conditions import set_condition
from taskflow_core.domain.resource import Condition
from taskflow_core.domain.task import MAX_MESSAGE_CHARS
from tests.builders import NOW

LATER = NOW + timedelta(minutes=1)


def made(*, status: bool = True, reason: str = "Started") -> tuple[Condition, ...]:
    return set_condition((), "Running", status=status, reason=reason, message="", generation=1, now=NOW)


def test_a_new_condition_begins_now() -> None:
    (condition,) = made()
    assert (condition.type, condition.status, condition.last_transition_time) == ("Running", "True", NOW)


def test_the_time_stays_while_the_status_does() -> None:
    (condition,) = set_condition(
        made(), "Running", status=True, reason="Other", message="moved", generation=2, now=LATER
    )
    assert condition.last_transition_time == NOW
    assert (condition.reason, condition.message, condition.observed_generation) == ("Other", "moved", 2)


def test_the_time_moves_with_the_status() -> None:
    (condition,) = set_condition(made(), "Running", status=False, reason="Ended", message="", generation=1, now=LATER)
    assert (condition.status, condition.last_transition_time) == ("False", LATER)


def test_other_conditions_keep_their_place_and_value() -> None:
    first = set_condition(made(), "Queued", status=False, reason="Started", message="", generation=1, now=NOW)
    second = set_condition(first, "Running", status=False, reason="Ended", message="", generation=1, now=LATER)
    assert [c.type for c in second] == ["Running", "Queued"]
    assert second[1] == first[1]


def test_a_long_message_is_cut_to_what_the_resource_holds() -> None:
    (condition,) = set_condition((), "Failed", status=True, reason="R", message="é" * 5000, generation=1, now=NOW)
    assert condition.message == "é" * MAX_MESSAGE_CHARS


@given(steps=st.lists(st.tuples(st.sampled_from(["A", "B", "C"]), st.booleans()), max_size=30))
def test_types_are_unique_and_times_are_those_of_the_last_change(steps: list[tuple[str, bool]]) -> None:
    conditions: tuple[Condition, ...] = ()
    state: dict[str, bool] = {}
    changed = {}
    for minute, (kind, status) in enumerate(steps):
        now = NOW + timedelta(minutes=minute)
        if state.get(kind) != status:
            changed[kind] = now
        state[kind] = status
        conditions = set_condition(
            conditions, kind, status=status, reason="R", message=str(minute), generation=1, now=now
        )
    assert {c.type: c.status == "True" for c in conditions} == state
    assert {c.type: c.last_transition_time for c in conditions} == changed
    assert len(conditions) == len(state)
