from __future__ import annotations

from itertools import pairwise

import pytest

from taskflow_operator.arrays.chunk_size import GROWTH, MAX_ITEMS, ChunkSizer


def settled(item_seconds: float, rounds: int = 30) -> ChunkSizer:
    sizer = ChunkSizer()
    for _ in range(rounds):
        sizer = sizer.after(sizer.size, sizer.size * item_seconds, cut=False)
    return sizer


@pytest.mark.parametrize("item_seconds", [0.000005, 0.0001, 0.001, 0.02, 0.1, 0.4])
def test_chunks_come_to_last_between_50_and_500_ms(item_seconds: float) -> None:
    assert 0.05 <= settled(item_seconds).size * item_seconds <= 0.5


def test_an_item_that_lasts_longer_is_a_chunk_of_its_own() -> None:
    assert settled(60.0).size == 1


def test_the_first_is_one_item_and_growth_is_bounded() -> None:
    sizer, sizes = ChunkSizer(), [1]
    for _ in range(6):
        sizer = sizer.after(sizer.size, 0.0, cut=False)
        sizes.append(sizer.size)
    assert sizes == [1, 8, 64, 512, 4096, 32768, MAX_ITEMS]
    assert all(after <= before * GROWTH for before, after in pairwise(sizes))


def test_a_chunk_that_was_cut_is_not_exceeded() -> None:
    assert settled(0.0001).after(100, 0.01, cut=True).size == 100


def test_items_that_become_slow_make_small_chunks_within_some() -> None:
    sizer = settled(0.0001)
    for _ in range(20):
        sizer = sizer.after(max(sizer.size // 10, 1), max(sizer.size // 10, 1) * 0.1, cut=True)
    assert sizer.size <= 5


def test_nothing_that_ran_teaches_nothing() -> None:
    assert ChunkSizer().after(0, 5.0, cut=True) == ChunkSizer()


def test_near_the_end_chunks_become_smaller_but_not_too_small() -> None:
    sizer = settled(0.001)
    assert sizer.items(100_000, 8) == sizer.size
    assert sizer.items(800, 8) == 100
    assert sizer.items(80, 8) == 50
    assert sizer.items(3, 8) == 50
