from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskflow_core.domain.ranges import RangeSet

INDICES = st.sets(st.integers(0, 60))


@given(INDICES, INDICES)
def test_it_does_what_a_set_of_indices_does(one: set[int], other: set[int]) -> None:
    first, second = RangeSet.of(one), RangeSet.of(other)
    assert set(first | second) == one | other
    assert set(first - second) == one - other
    assert set(first & second) == one & other
    assert len(first) == len(one)
    assert {index for index in range(62) if index in first} == one
    assert (first == second) == (one == other)


@given(INDICES)
def test_it_reads_what_it_writes_and_keeps_as_few_ranges_as_there_are(indices: set[int]) -> None:
    found = RangeSet.of(indices)
    assert RangeSet.parse(str(found)) == found
    assert list(found) == sorted(indices)
    pairs = list(found.pairs())
    assert all(before[1] + 1 < after[0] for before, after in pairwise(pairs))


@given(INDICES, st.integers(0, 70))
def test_what_is_taken_are_the_least(indices: set[int], count: int) -> None:
    taken, rest = RangeSet.of(indices).take(count)
    assert list(taken) == sorted(indices)[:count]
    assert list(rest) == sorted(indices)[count:]


@given(INDICES, st.integers(8, 40))
def test_what_is_shown_has_at_most_the_length_and_says_when_it_is_cut(indices: set[int], limit: int) -> None:
    found = RangeSet.of(indices)
    shown = found.shown(limit)
    assert len(shown) <= limit
    if len(str(found)) <= limit - len(",..."):
        assert shown == str(found)
    if shown.endswith("..."):
        known = RangeSet.parse(shown.removesuffix("...").removesuffix(","))
        assert list(known) == sorted(indices)[: len(known)]
    else:
        assert shown == str(found)


def test_a_million_indices_are_one_range() -> None:
    found = RangeSet([(0, 999_999)])
    assert (len(found), found.ranges, found.first, found.last) == (1_000_000, 1, 0, 999_999)
    assert str(found - RangeSet.parse("3,7-9")) == "0-2,4-6,10-999999"


@pytest.mark.parametrize("text", ["x", "1,", ",1", "3-1", "1--2", "-1", "1 2", "1.5", "1-2-3"])
def test_what_is_no_set_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        RangeSet.parse(text)


def test_an_empty_set_has_no_ends() -> None:
    assert (str(RangeSet()), bool(RangeSet())) == ("", False)
    with pytest.raises(ValueError, match="empty"):
        _ = RangeSet().first
    with pytest.raises(ValueError, match="empty"):
        _ = RangeSet().last
