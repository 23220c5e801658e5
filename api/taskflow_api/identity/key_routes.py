"""Routes of API keys. They need the permission `create serviceaccounts/token` on the ServiceAccount of the key."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request, Response

from taskflow_api.http.access import audit, require
from taskflow_api.http.kubernetes_auth import Caller, Method, Scope
from taskflow_api.http.names import Namespace
from taskflow_api.http.openapi import PROBLEMS
from taskflow_api.http.problems import ProblemError
from taskflow_api.http.services import InServices, Services
from taskflow_api.identity.key_store import KeyRow
from taskflow_api.identity.keys import Keys, NewKey
from taskflow_api.identity.schemas import (
    KeyBody,
    KeyList,
    KeyView,
    NewKeyView,
    RotateBody,
    ServiceAccountName,
    fields,
    view,
)
from taskflow_api.identity.service_accounts import TOKENS
from taskflow_core.errors import NotFound

COLLECTION = "/v1/namespaces/{namespace}/apikeys"
ONE = COLLECTION + "/{id:part}"
KeyId = Annotated[
    str, Path(alias="id", pattern=r"^[0-9a-f]{16}$", description="The part of the key before its secret.")
]
router = APIRouter(tags=["apikeys"], responses=PROBLEMS)


async def _keys(request: Request) -> Keys:
    keys: Keys = request.app.state.identity.keys
    return keys


InKeys = Annotated[Keys, Depends(_keys)]


@router.post(COLLECTION, status_code=201, operation_id="createApiKey", summary="Create an API key for a ServiceAccount")
async def create_key(
    request: Request, response: Response, namespace: Namespace, body: KeyBody, services: InServices, keys: InKeys
) -> NewKeyView:
    """Only this response contains the `key`."""
    caller = await _authorise(request, services, namespace, body.service_account, "create", body.service_account)
    scopes = tuple(map(Scope, body.scopes))
    lifetime = timedelta(seconds=body.expiration_seconds)
    new = NewKey(namespace, body.service_account, body.name, scopes, lifetime)
    row, text = await keys.create(new, caller.username)
    return _new(request, response, row, str(text))


@router.get(COLLECTION, operation_id="listApiKeys", summary="List the keys of a namespace or of one ServiceAccount")
async def list_keys(
    request: Request,
    namespace: Namespace,
    services: InServices,
    keys: InKeys,
    service_account: Annotated[ServiceAccountName | None, Query(alias="serviceAccount")] = None,
) -> KeyList:
    """The list contains no secrets. The list of a namespace needs the permission on all of its ServiceAccounts."""
    await _authorise(request, services, namespace, service_account or "")
    rows = await keys.of_namespace(namespace, service_account)
    return KeyList(items=[view(row) for row in rows])


@router.get(ONE, operation_id="getApiKey", summary="Get an API key without its secret")
async def get_key(request: Request, namespace: Namespace, key_id: KeyId, services: InServices, keys: InKeys) -> KeyView:
    """Includes its last use and its expiry."""
    return view(await _find(request, services, keys, namespace, key_id))


@router.post(ONE + ":rotate", status_code=201, operation_id="rotateApiKey", summary="Rotate an API key")
async def rotate_key(
    request: Request,
    response: Response,
    namespace: Namespace,
    key_id: KeyId,
    services: InServices,
    keys: InKeys,
    body: RotateBody | None = None,
) -> NewKeyView:
    """The new key has the same ServiceAccount, scopes and lifetime. Both keys are valid until the grace period ends."""
    old = await _find(request, services, keys, namespace, key_id, "rotate")
    grace = timedelta(seconds=(body or RotateBody()).grace_seconds)
    row, text = await keys.rotate(old, grace, request.state.caller.username)
    return _new(request, response, row, str(text))


@router.delete(ONE, status_code=204, operation_id="revokeApiKey", summary="Revoke an API key")
async def revoke_key(request: Request, namespace: Namespace, key_id: KeyId, services: InServices, keys: InKeys) -> None:
    """Takes effect at once in this process, and within 10 s in others."""
    await _find(request, services, keys, namespace, key_id, "delete")
    if not await keys.revoke(key_id):
        raise _not_found(namespace, key_id)


async def _authorise(
    request: Request, services: Services, namespace: str, service_account: str, verb: str = "", name: str = ""
) -> Caller:
    """Refuse callers who may not act as the ServiceAccount. A verb marks a change, which is audited.

    API keys cannot manage API keys, whatever their scopes, so a leaked key cannot create others that outlive it.
    """
    caller: Caller = request.state.caller
    if verb:
        audit(request, caller, verb, "apikeys", namespace, name)
    if caller.method is Method.API_KEY:
        raise ProblemError(403, "an API key may not read or change API keys; use another kind of token")
    await require(services, caller, "create", TOKENS, namespace, service_account)
    return caller


async def _find(
    request: Request, services: Services, keys: Keys, namespace: str, key_id: str, verb: str = ""
) -> KeyRow:
    """The key. Callers without the permission get the same answer whether the key exists or not."""
    row = await keys.get(key_id)
    if row is None or row.namespace != namespace:
        await _authorise(request, services, namespace, "", verb, key_id)
        raise _not_found(namespace, key_id)
    await _authorise(request, services, namespace, row.service_account, verb, key_id)
    return row


def _not_found(namespace: str, key_id: str) -> NotFound:
    return NotFound(f"there is no API key {key_id} in namespace {namespace}")


def _new(request: Request, response: Response, row: KeyRow, text: str) -> NewKeyView:
    request.state.audit["name"] = row.id
    response.headers["Location"] = f"/v1/namespaces/{row.namespace}/apikeys/{row.id}"
    return NewKeyView.model_validate({**fields(row), "key": text})
