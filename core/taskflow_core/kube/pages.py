"""How many objects a page of a list has: many, but only as long as they are small."""

from __future__ import annotations

from typing import Protocol

from aiohttp import StreamReader

MAX_PAGE_BYTES = 8 * 1024 * 1024
"""An object may have a megabyte, by its annotations alone a quarter. Whoever may create objects must not decide how
much memory it takes to list them."""


class TooLarge(Exception):  # noqa: N818 - no error, but a reason to ask for less
    """A page has more than `MAX_PAGE_BYTES`."""


class PageLimit:
    """The limit of the next page, after what became of the former ones."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.value = most

    def fitted(self) -> None:
        """The page was read."""
        self.value = min(self._most, self.value * 2)

    def shrink(self) -> None:
        """The page was too large."""
        self.value = max(1, self.value // 8)

    @property
    def bytes(self) -> int | None:
        """The most bytes of the next page; None for a single object, which is read whatever its size."""
        return MAX_PAGE_BYTES if self.value > 1 else None


class Body(Protocol):
    """An answer that is being received."""

    @property
    def content(self) -> StreamReader:
        """What comes, piece by piece."""

    async def read(self) -> bytes:
        """All of it."""


async def read_body(response: Body, most: int | None) -> bytes:
    """The answer, unpacked.

    Raises:
        TooLarge: it has more bytes; the rest is not received.
    """
    if most is None:
        return await response.read()
    body = bytearray()
    async for piece in response.content.iter_any():
        body += piece
        if len(body) > most:
            raise TooLarge
    return bytes(body)
