"""The format of API keys: `tf_<id>_<secret><checksum>` in hexadecimal, with 64 + 256 + 32 bits.

With the prefix and the checksum, scanners can detect leaked keys without false positives, and typing errors are
rejected without a database query. Only the SHA-256 digest of the secret is stored. A slow password hash would add cost
but no protection, because 256 random bits cannot be guessed.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import zlib
from dataclasses import dataclass

PREFIX = "tf_"
_FORM = re.compile(r"(tf_([0-9a-f]{16})_([0-9a-f]{64}))([0-9a-f]{8})")


@dataclass(frozen=True, slots=True)
class ApiKey:
    """An API key as its holder has it."""

    id: str
    secret: str

    @classmethod
    def new(cls) -> ApiKey:
        """A random key."""
        return cls(secrets.token_hex(8), secrets.token_hex(32))

    @classmethod
    def parse(cls, text: str) -> ApiKey | None:
        """The key in a text; None if the format or the checksum is wrong."""
        found = _FORM.fullmatch(text)
        if found is None or _checksum(found[1]) != found[4]:
            return None
        return cls(found[2], found[3])

    def __str__(self) -> str:
        body = f"{PREFIX}{self.id}_{self.secret}"
        return body + _checksum(body)

    def __repr__(self) -> str:
        return f"ApiKey({self.id})"

    @property
    def digest(self) -> bytes:
        """The digest of the secret, which is stored."""
        return hashlib.sha256(self.secret.encode()).digest()

    def matches(self, digest: bytes) -> bool:
        """Whether the stored digest is that of this secret. The comparison takes constant time."""
        return hmac.compare_digest(self.digest, digest)


def _checksum(text: str) -> str:
    return f"{zlib.crc32(text.encode()):08x}"
