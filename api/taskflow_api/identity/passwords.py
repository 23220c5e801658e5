"""Password hashing with argon2id and the low-memory parameters of RFC 9106 (64 MiB, three passes)."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from argon2.profiles import RFC_9106_LOW_MEMORY

from taskflow_core.errors import Unavailable

MAX_CONCURRENT = 2
"""Each hash takes 64 MiB and about 50 ms of CPU time."""
MAX_WAITING = 16


class Passwords:
    """Hashes and verifies passwords in threads, a few at a time. If too many wait, calls fail."""

    def __init__(self, hasher: PasswordHasher | None = None) -> None:
        self._hasher = hasher or PasswordHasher.from_parameters(RFC_9106_LOW_MEMORY)
        self._slots = asyncio.Semaphore(MAX_CONCURRENT)
        self._waiting = 0
        self._dummy_hash = self._hasher.hash(secrets.token_hex(16))

    async def hash(self, password: str) -> str:
        """The hash of a password. Raises Unavailable if too many calls wait."""
        async with self._slot():
            return await asyncio.to_thread(self._hasher.hash, password)

    async def verify(self, stored: str | None, password: str) -> bool:
        """Whether the password matches. Raises Unavailable if too many calls wait.

        Without a stored hash it takes the same time and returns False.
        """
        async with self._slot():
            matches = await asyncio.to_thread(self._verify, stored or self._dummy_hash, password)
        return matches and stored is not None

    def _verify(self, stored: str, password: str) -> bool:
        try:
            return self._hasher.verify(stored, password)
        except (VerificationError, InvalidHashError):
            return False

    @asynccontextmanager
    async def _slot(self) -> AsyncIterator[None]:
        if self._waiting >= MAX_WAITING:
            raise Unavailable("too many passwords are being hashed")
        self._waiting += 1
        try:
            await self._slots.acquire()
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._slots.release()
