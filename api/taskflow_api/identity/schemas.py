from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, SecretStr, StringConstraints

from taskflow_api.access import DNS_NAME, MAX_NAME_CHARS
from taskflow_api.auth import Scope
from taskflow_api.identity.keys import DEFAULT_GRACE, DEFAULT_LIFE, MAX_GRACE, MAX_LIFE, MIN_LIFE
from taskflow_api.identity.keystore import KeyRow
from taskflow_api.tasks.schemas import Body, examples
from taskflow_core.domain.resource import Model

ServiceAccountName = Annotated[str, StringConstraints(max_length=MAX_NAME_CHARS, pattern=f"^{DNS_NAME}$")]
AccountName = Annotated[str, StringConstraints(max_length=63, pattern=r"^[a-z0-9]([-a-z0-9._]*[a-z0-9])?$")]


class KeyBody(Body):
    """A key to be made."""

    model_config = examples({"serviceAccount": "ci", "name": "nightly builds", "scopes": ["read", "write"]})

    service_account: ServiceAccountName
    """What it stands for."""
    name: Annotated[str, StringConstraints(max_length=100, pattern=r"^[^\x00-\x1f\x7f]*$")] = ""
    """For people: who or what uses it."""
    scopes: Annotated[list[Literal["read", "write"]], Field(min_length=1, max_length=2)]
    """`read` to get and list, `write` to create and change; RBAC decides within them."""
    expiration_seconds: Annotated[int, Field(ge=int(MIN_LIFE.total_seconds()), le=int(MAX_LIFE.total_seconds()))] = int(
        DEFAULT_LIFE.total_seconds()
    )


class RotateBody(Body):
    """How long the old key goes on."""

    model_config = examples({"graceSeconds": 3600})

    grace_seconds: Annotated[int, Field(ge=0, le=int(MAX_GRACE.total_seconds()))] = int(DEFAULT_GRACE.total_seconds())


class KeyView(Model):
    """A key, without its secret."""

    id: str
    namespace: str
    service_account: str
    name: str
    scopes: list[Scope]
    created_at: datetime
    created_by: str
    expires_at: datetime
    last_used_at: datetime | None
    """Up to a minute behind."""
    replaced_by: str | None
    """The key that it was rotated to."""


class NewKeyView(KeyView):
    """A key with its secret, which is told this once."""

    key: str


class KeyList(Model):
    """Keys, oldest first; expired ones for 30 days."""

    items: list[KeyView]


class Credentials(Body):
    """Name and password of an account."""

    model_config = examples({"username": "ada", "password": "a long one of four words"})

    username: AccountName
    password: Annotated[SecretStr, Field(min_length=12, max_length=256)]


class AccountView(Model):
    """An account."""

    username: str
    bound: bool
    """Whether it stands for a ServiceAccount; until then there is no token for it."""


class TokenView(Model):
    """A token, as OAuth 2.0 calls its parts (RFC 6749)."""

    access_token: str
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105 - a kind of token
    expires_in: int
    """Seconds."""


def view(row: KeyRow) -> KeyView:
    """What may be told of a key."""
    return KeyView.model_validate(fields(row))


def fields(row: KeyRow) -> dict[str, object]:
    """What may be told of a key, by the names of `KeyView`."""
    return {name: getattr(row, name) for name in KeyView.model_fields}
