"""The protocol of docs/architecture.md, looked at state by state: docs/decisions/0006-a-model-of-the-protocol.md."""

from __future__ import annotations

import pytest

from tests.model.explore import explore
from tests.model.protocol import Design

SCOPES = (
    "",
    "worker duplicate cancel",
    "operator cancel",
    "operator worker",
    "operator duplicate",
    "flush cancel duplicate",
    "flush worker",
    "again",
    "again operator cancel",
    "again worker duplicate",
    "again flush",
)
"""Accidents that happen together, each once at any moment. `make model` looks at four of them at once. With `again`,
each attempt may end with that, too.
"""

MISTAKES = {
    "claim_needs_ledger": ("cancel duplicate", "an execution began after"),
    # Each of these two hides the other.
    "claim_leaves_ledger withdraw_minds_claims": ("cancel", "withdrawn that somebody holds"),
    "withdraw_minds_claims": ("flush cancel", "withdrawn that somebody holds"),
    "enqueue_minds_claims": ("", "executed twice"),
    "finish_compares_holder": ("worker", "two winners"),
    "expire_leaves_tombstone": ("worker", "recovery took away"),
    "renews_what_runs": ("flush", "used up"),
    "status_before_settle": ("operator cancel", "no end can be reached"),
    "status_before_next": ("operator", "no end can be reached"),
    "status_before_acknowledge": ("operator", "two winners"),
    "recovery_waits": ("flush", "recovery took away"),
    "gives_up_by_event": ("flush", "two winners"),
    "end_is_guarded": ("operator", "a terminal phase changed"),
    "message_is_missed": ("operator", "no end can be reached"),
}
"""Parts of the design that are left out, the accidents that it takes, and what is found."""


def accidents(scope: str) -> frozenset[str]:
    return frozenset(scope.split())


@pytest.mark.parametrize("scope", SCOPES, ids=lambda scope: scope.replace(" ", "-") or "nothing")
def test_whatever_happens_no_state_is_wrong_and_an_end_stays_in_reach(scope: str) -> None:
    found = explore(accidents(scope), Design())
    print(f"{scope or 'no accident'}: {found.states} states")  # noqa: T201 - for who asks, by -rP
    assert found.wrong == "", "\n".join(found.trace)
    assert found.states > 50


@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_search_finds_each_mistake(mistake: str) -> None:
    scope, words = MISTAKES[mistake]
    found = explore(accidents(scope), Design(**dict.fromkeys(mistake.split(), False)))
    assert words in found.wrong, f"{found.states} states: {found.wrong or 'nothing'}\n" + "\n".join(found.trace)
    print("\n".join([found.wrong, *found.trace]))  # noqa: T201


@pytest.mark.parametrize(
    ("scope", "mistake"), [("again", "gives_up_by_event"), ("again operator", "status_before_acknowledge")]
)
def test_the_search_finds_what_would_take_a_continuation_for_a_loss(scope: str, mistake: str) -> None:
    found = explore(accidents(scope), Design(**{mistake: False}))
    assert "taken for a lost one" in found.wrong, "\n".join(found.trace)


def test_there_is_a_mistake_for_each_part_of_the_design() -> None:
    assert {part for mistake in MISTAKES for part in mistake.split()} == set(Design._fields)
