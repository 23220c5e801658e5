"""Secrets of endpoints: how they look, how they are stored, how a message is signed with them."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Sequence
from datetime import datetime

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from standardwebhooks import Webhook

from taskflow_core.errors import Invalid, TaskflowError

PREFIX = "whsec_"
SECRET_BYTES = 32
_HOW = "python -c 'from cryptography.fernet import Fernet; print(Fernet.generate_key().decode())'"


class LostKeyError(TaskflowError):
    """A secret was encrypted with a key that this installation no longer has."""


def new_secret() -> str:
    """A random one, as Standard Webhooks writes them."""
    return PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


class Vault:
    """Encrypts secrets for the database (Fernet: AES-128-CBC and HMAC-SHA256), so that its backups tell none.

    Args:
        keys: Of 32 bytes in URL-safe base64. The first encrypts, all decrypt: put a new one first, and drop the old one when
            all endpoints have been rotated.

    Raises:
        Invalid: there is none, or one is no key; the message does not have it.
    """

    def __init__(self, keys: Sequence[str]) -> None:
        if not keys:
            raise Invalid(f"TASKFLOW_WEBHOOKS_ENABLED needs TASKFLOW_WEBHOOKS_KEY; {_HOW}")
        try:
            self._keys = MultiFernet([Fernet(key) for key in keys])
        except ValueError:
            raise Invalid(f"TASKFLOW_WEBHOOKS_KEY: expected 32 bytes in URL-safe base64; {_HOW}") from None

    def seal(self, secret: str) -> bytes:
        """For the database."""
        return self._keys.encrypt(secret.encode())

    def open(self, sealed: bytes) -> str:
        """From the database.

        Raises:
            LostKeyError: none of the keys opens it.
        """
        try:
            return self._keys.decrypt(sealed).decode()
        except InvalidToken:
            raise LostKeyError(
                "the secret is sealed with a key that is not in TASKFLOW_WEBHOOKS_KEY; rotate it"
            ) from None


def signed_headers(keys: Sequence[str], event_id: str, at: datetime, body: str) -> dict[str, str]:
    """Headers of a message, with one signature for each secret, the newest first.

    Args:
        keys: `whsec_` secrets.
        event_id: The same with each attempt.
        at: Of this attempt, in UTC; receivers refuse what is older than 5 minutes.
        body: Exactly what is sent.
    """
    return {
        "webhook-id": event_id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": " ".join(Webhook(key).sign(event_id, at, body) for key in keys),
    }
