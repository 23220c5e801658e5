"""Request and response bodies of API keys and accounts."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, SecretStr, StringConstraints

from taskflow_api.http.body import Body, examples
from taskflow_api.http.kubernetes_auth import Scope
from taskflow_api.http.names import DNS_NAME, MAX_NAME_CHARS
from taskflow_api.identity.key_store import KeyRow
from taskflow_api.identity.keys import DEFAULT_GRACE, DEFAULT_LIFETIME, MAX_GRACE, MAX_LIFETIME, MIN_LIFETIME
from taskflow_core.domain.resource import Model

ServiceAccountName = Annotated[str, StringConstraints(max_length=MAX_NAME_CHARS, pattern=f"^{DNS_NAME}$")]
AccountName = Annotated[str, StringConstraints(max_length=63, pattern=r"^[a-z0-9]([-a-z0-9._]*[a-z0-9])?$")]


class KeyBody(Body):
    """A key to create."""

    model_config = examples({"serviceAccount": "ci", "name": "nightly builds", "scopes": ["read", "write"]})

    service_account: ServiceAccountName
    """The ServiceAccount that the key authenticates as."""
    name: Annotated[str, StringConstraints(max_length=100, pattern=r"^[^\x00-\x1f\x7f]*$")] = ""
    """A label for people, such as the user of the key."""
    scopes: Annotated[list[Literal["read", "write"]], Field(min_length=1, max_length=2)]
    """`read` to get and list, `write` to create and change. RBAC decides within them."""
    expiration_seconds: Annotated[
        int, Field(ge=int(MIN_LIFETIME.total_seconds()), le=int(MAX_LIFETIME.total_seconds()))
    ] = int(DEFAULT_LIFETIME.total_seconds())


class RotateBody(Body):
    """How long the old key stays valid."""

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
    """Updated once a minute."""
    replaced_by: str | None
    """The id of the key that replaced it."""


class NewKeyView(KeyView):
    """A key with its secret, which is shown only once."""

    key: str


class KeyList(Model):
    """Keys, oldest first. Expired keys are listed for 30 days."""

    items: list[KeyView]


class Credentials(Body):
    """The name and password of an account."""

    model_config = examples({"username": "ada", "password": "a long one of four words"})

    username: AccountName
    password: Annotated[SecretStr, Field(min_length=12, max_length=256)]


class AccountView(Model):
    """An account, if the name was free."""

    username: str
    id: str
    """An administrator binds the account by it."""


class TokenView(Model):
    """A token, with the field names of OAuth 2.0 (RFC 6749)."""

    access_token: str
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105 - a token type
    expires_in: int
    """Seconds until the token expires."""


def view(row: KeyRow) -> KeyView:
    """The response body of a key."""
    return KeyView.model_validate(fields(row))


def fields(row: KeyRow) -> dict[str, object]:
    """The public fields of a key, by the names of `KeyView`."""
    return {name: getattr(row, name) for name in KeyView.model_fields}
