from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskflow_core.domain.attempts import AttemptKey
from tests.builders import UID, make_task


def test_the_current_attempt_of_a_task_is_named_with_its_namespace() -> None:
    key = AttemptKey.current(make_task(attempt=3, namespace="team-b"))
    assert key == AttemptKey("team-b", UID, 3)
    assert (key.member, key.place, key.claim) == (f"{UID}:3", "3", f"tf:{{team-b}}:cl:{UID}:3")


@given(
    uid=st.from_regex(r"[A-Za-z0-9-]{1,64}", fullmatch=True),
    attempt=st.integers(1, 999_999),
    chunk=st.none() | st.integers(-1, 999_999_999),
)
def test_a_member_reads_back(uid: str, attempt: int, chunk: int | None) -> None:
    key = AttemptKey("team-a", uid, attempt, chunk)
    assert AttemptKey.of("team-a", key.member) == key


@pytest.mark.parametrize(
    "member",
    [
        "",
        "uid",
        ":1",
        "uid:",
        "uid:0",
        "uid:-1",
        "uid:01",
        "uid:1:",
        "uid:1:x",
        "uid:1:-2",
        "uid:1:1:1",
        "uid:1000000",
        "uid:1\n",
        "a/b:1",
        "\udcff:1",
        "x" * 65 + ":1",
        "uid:" + "9" * 5000,
        "uid:\u0661",
    ],
    ids=ascii,
)
def test_what_a_worker_may_have_written_in_place_of_a_member_is_none(member: str) -> None:
    assert AttemptKey.of("team-a", member) is None


@given(member=st.text(alphabet=st.characters() | st.characters(categories=["Cs"])))
def test_whatever_is_written_is_a_member_or_none(member: str) -> None:
    key = AttemptKey.of("team-a", member)
    assert key is None or key.member == member
