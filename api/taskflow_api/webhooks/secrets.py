"""Secrets of endpoints: generation, encryption for the database, and signatures of messages."""

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
_GENERATE = "python -c 'from cryptography.fernet import Fernet; print(Fernet.generate_key().decode())'"


class LostKeyError(TaskflowError):
    """A secret is encrypted with a key that is not configured."""


def new_secret() -> str:
    """A random secret in the format of Standard Webhooks."""
    return PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


class Vault:
    """Encrypts secrets for the database (Fernet: AES-128-CBC and HMAC-SHA256), so that backups do not reveal them.

    Args:
        keys: Fernet keys. The first encrypts, all decrypt. To replace a key, put the new one first, and remove the old
            one after the secrets of all endpoints have been rotated.

    Raises:
        Invalid: there is no key, or one is not valid. The message does not contain the key.
    """

    def __init__(self, keys: Sequence[str]) -> None:
        if not keys:
            raise Invalid(f"TASKFLOW_WEBHOOKS_ENABLED needs TASKFLOW_WEBHOOKS_KEY; create one with: {_GENERATE}")
        try:
            self._keys = MultiFernet([Fernet(key) for key in keys])
        except ValueError:
            raise Invalid(
                f"TASKFLOW_WEBHOOKS_KEY: expected 32 bytes in URL-safe base64; create one with: {_GENERATE}"
            ) from None

    def encrypt(self, secret: str) -> bytes:
        """The secret as it is stored."""
        return self._keys.encrypt(secret.encode())

    def decrypt(self, stored: bytes) -> str:
        """The secret from its stored form.

        Raises:
            LostKeyError: none of the keys decrypts it.
        """
        try:
            return self._keys.decrypt(stored).decode()
        except InvalidToken:
            raise LostKeyError(
                "the secret is encrypted with a key that is not in TASKFLOW_WEBHOOKS_KEY; rotate the secret"
            ) from None


def signed_headers(keys: Sequence[str], event_id: str, at: datetime, body: str) -> dict[str, str]:
    """The headers of a message, with one signature for each secret.

    Args:
        keys: `whsec_` secrets, the newest first.
        event_id: The same in each attempt.
        at: The time of the attempt in UTC. Receivers reject messages older than 5 minutes.
        body: The exact body.
    """
    return {
        "webhook-id": event_id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": " ".join(Webhook(key).sign(event_id, at, body) for key in keys),
    }
