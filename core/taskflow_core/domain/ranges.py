"""Sets of indices as ranges."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator

_TEXT = re.compile(r"[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*")
Pair = tuple[int, int]
"""First and last index of a range, both included."""


class RangeSet:
    """A set of indices as sorted ranges that do not touch. Frozen: every operation makes another set.

    Memory and time go with the number of ranges, not with the number of indices.
    """

    __slots__ = ("_firsts", "_lasts", "_size")

    def __init__(self, pairs: Iterable[Pair] = ()) -> None:
        firsts: list[int] = []
        lasts: list[int] = []
        for first, last in sorted(pairs):
            if lasts and first <= lasts[-1] + 1:
                lasts[-1] = max(lasts[-1], last)
            else:
                firsts.append(first)
                lasts.append(last)
        self._firsts = firsts
        self._lasts = lasts
        self._size = sum(lasts) - sum(firsts) + len(firsts)

    @classmethod
    def parse(cls, text: str) -> RangeSet:
        """Read `3,7-9`; an empty text is the empty set.

        Raises:
            ValueError: it is something else, or a range ends before it begins.
        """
        if not text:
            return cls()
        if not _TEXT.fullmatch(text):
            raise ValueError(f"expected indices like 3,7-9, found {text[:80]!r}")
        pairs: list[Pair] = []
        for part in text.split(","):
            first, _, last = part.partition("-")
            pair = int(first), int(last or first)
            if pair[1] < pair[0]:
                raise ValueError(f"expected a range that ends after its begin, found {part}")
            pairs.append(pair)
        return cls(pairs)

    @classmethod
    def of(cls, indices: Iterable[int]) -> RangeSet:
        """The set of these indices."""
        return cls((index, index) for index in indices)

    def pairs(self) -> Iterator[Pair]:
        """The ranges in order."""
        return zip(self._firsts, self._lasts, strict=True)

    @property
    def first(self) -> int:
        """The least index.

        Raises:
            ValueError: it is empty.
        """
        if not self._firsts:
            raise ValueError("an empty set has no first index")
        return self._firsts[0]

    @property
    def last(self) -> int:
        """The greatest index.

        Raises:
            ValueError: it is empty.
        """
        if not self._lasts:
            raise ValueError("an empty set has no last index")
        return self._lasts[-1]

    @property
    def ranges(self) -> int:
        """How many ranges it consists of."""
        return len(self._firsts)

    def __len__(self) -> int:
        return self._size

    def __contains__(self, index: int) -> bool:
        place = bisect_right(self._firsts, index) - 1
        return place >= 0 and index <= self._lasts[place]

    def __iter__(self) -> Iterator[int]:
        for first, last in self.pairs():
            yield from range(first, last + 1)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RangeSet) and self._firsts == other._firsts and self._lasts == other._lasts

    def __hash__(self) -> int:
        return hash((tuple(self._firsts), tuple(self._lasts)))

    def __or__(self, other: RangeSet) -> RangeSet:
        if not other._firsts:
            return self
        return RangeSet([*self.pairs(), *other.pairs()]) if self._firsts else other

    def __sub__(self, other: RangeSet) -> RangeSet:
        if not other._firsts or not self._firsts:
            return self
        left: list[Pair] = []
        for first, last in self.pairs():
            begin = first
            # Only the ranges of the other that reach into this one.
            place = bisect_left(other._lasts, first)
            while place < len(other._firsts) and other._firsts[place] <= last:
                if other._firsts[place] > begin:
                    left.append((begin, other._firsts[place] - 1))
                begin = other._lasts[place] + 1
                place += 1
            if begin <= last:
                left.append((begin, last))
        return RangeSet(left)

    def __and__(self, other: RangeSet) -> RangeSet:
        return self - (self - other)

    def take(self, count: int) -> tuple[RangeSet, RangeSet]:
        """The least `count` indices, and the rest."""
        if count >= self._size:
            return self, RangeSet()
        taken: list[Pair] = []
        place, wanted = 0, count
        while wanted > 0:
            first, last = self._firsts[place], self._lasts[place]
            length = min(last - first + 1, wanted)
            taken.append((first, first + length - 1))
            wanted -= length
            place += 1
        head, rest = RangeSet(taken), RangeSet()
        # Copied and not computed: there may be very many ranges, of which each chunk takes a few.
        rest._firsts, rest._lasts, rest._size = self._firsts[place:], self._lasts[place:], self._size - len(head)
        if taken and taken[-1][1] < self._lasts[place - 1]:
            rest._firsts.insert(0, taken[-1][1] + 1)
            rest._lasts.insert(0, self._lasts[place - 1])
        return head, rest

    def __str__(self) -> str:
        return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in self.pairs())

    def __repr__(self) -> str:
        return f"RangeSet({self!s})"

    def shown(self, limit: int) -> str:
        """The text, of at most `limit` characters; one that is cut ends with `,...`."""
        parts: list[str] = []
        room = limit - len(",...")
        for first, last in self.pairs():
            part = str(first) if first == last else f"{first}-{last}"
            room -= len(part) + (1 if parts else 0)
            if room < 0:
                return ",".join([*parts, "..."])
            parts.append(part)
        return ",".join(parts)
