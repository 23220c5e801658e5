"""How an API key looks: `tf_<id>_<secret><checksum>`, all hexadecimal, 64 + 256 + 32 bits.

The prefix and the checksum let scanners find a leaked key without a false alarm, and let a typing error be refused without
asking the database. Only SHA-256 of the secret is stored: 256 random bits cannot be found by trying, however fast the hash
is, so a slow one as for passwords would protect nothing and cost each request.
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
class KeyText:
    """What the holder of a key has."""

    id: str
    secret: str

    @classmethod
    def new(cls) -> KeyText:
        """A random one."""
        return cls(secrets.token_hex(8), secrets.token_hex(32))

    @classmethod
    def parse(cls, text: str) -> KeyText | None:
        """What the text says; None when it is no key, or one with a typing error."""
        found = _FORM.fullmatch(text)
        if found is None or _checksum(found[1]) != found[4]:
            return None
        return cls(found[2], found[3])

    def __str__(self) -> str:
        body = f"{PREFIX}{self.id}_{self.secret}"
        return body + _checksum(body)

    def __repr__(self) -> str:
        return f"KeyText({self.id})"

    @property
    def digest(self) -> bytes:
        """What is stored of the secret."""
        return hashlib.sha256(self.secret.encode()).digest()

    def fits(self, digest: bytes) -> bool:
        """Whether the stored digest is that of this secret; takes the same time wherever they differ."""
        return hmac.compare_digest(self.digest, digest)


def _checksum(text: str) -> str:
    return f"{zlib.crc32(text.encode()):08x}"
