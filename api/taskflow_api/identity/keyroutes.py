"""API keys over REST. Whoever may be the ServiceAccount (`create serviceaccounts/token`) may make and end keys for it."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response

from taskflow_api.access import InServices, Namespace, audit, demand
from taskflow_api.auth import Caller, Method, Scope
from taskflow_api.documented import PROBLEMS
from taskflow_api.identity.keys import Wanted
from taskflow_api.identity.keystore import KeyRow
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
from taskflow_api.identity.serviceaccounts import TOKENS
from taskflow_api.problems import ProblemError
from taskflow_api.services import Services
from taskflow_core.errors import NotFound

COLLECTION = "/v1/namespaces/{namespace}/apikeys"
ONE = COLLECTION + "/{id:part}"
KeyId = Annotated[
    str, Path(alias="id", pattern=r"^[0-9a-f]{16}$", description="The part of the key before its secret.")
]
router = APIRouter(tags=["apikeys"], responses=PROBLEMS)


@router.post(COLLECTION, status_code=201, operation_id="createApiKey", summary="Make a key for a ServiceAccount")
async def create_key(
    request: Request, response: Response, namespace: Namespace, body: KeyBody, services: InServices
) -> NewKeyView:
    """`key` is in this answer and nowhere else."""
    caller = await _allowed(request, services, namespace, body.service_account, "create", body.service_account)
    scopes = tuple(map(Scope, body.scopes))
    life = timedelta(seconds=body.expiration_seconds)
    wanted = Wanted(namespace, body.service_account, body.name, scopes, life)
    row, text = await services.identity.keys.create(wanted, caller.username)
    return _new(request, response, row, str(text))


@router.get(COLLECTION, operation_id="listApiKeys", summary="Keys of a namespace, or of one ServiceAccount")
async def list_keys(
    request: Request,
    namespace: Namespace,
    services: InServices,
    service_account: Annotated[ServiceAccountName | None, Query(alias="serviceAccount")] = None,
) -> KeyList:
    """Without their secrets. Of the whole namespace only for those who may be any of its ServiceAccounts."""
    await _allowed(request, services, namespace, service_account or "")
    rows = await services.identity.keys.of_namespace(namespace, service_account)
    return KeyList(items=[view(row) for row in rows])


@router.get(ONE, operation_id="getApiKey", summary="One key, without its secret")
async def get_key(request: Request, namespace: Namespace, key_id: KeyId, services: InServices) -> KeyView:
    """When it was used last, and until when it is good."""
    return view(await _find(request, services, namespace, key_id))


@router.post(
    ONE + ":rotate", status_code=201, operation_id="rotateApiKey", summary="Make a key in the place of another"
)
async def rotate_key(
    request: Request,
    response: Response,
    namespace: Namespace,
    key_id: KeyId,
    services: InServices,
    body: RotateBody | None = None,
) -> NewKeyView:
    """The new one has the same ServiceAccount and scopes, and as long a life. Both are good until the grace period ends."""
    old = await _find(request, services, namespace, key_id, "rotate")
    grace = timedelta(seconds=(body or RotateBody()).grace_seconds)
    row, text = await services.identity.keys.rotate(old, grace, request.state.caller.username)
    return _new(request, response, row, str(text))


@router.delete(ONE, status_code=204, operation_id="revokeApiKey", summary="End a key")
async def revoke_key(request: Request, namespace: Namespace, key_id: KeyId, services: InServices) -> None:
    """At once in this process, within 10 s in others."""
    await _find(request, services, namespace, key_id, "delete")
    if not await services.identity.keys.revoke(key_id):
        raise _absent(namespace, key_id)


async def _allowed(
    request: Request, services: Services, namespace: str, service_account: str, verb: str = "", name: str = ""
) -> Caller:
    """Refuse whoever may not be the ServiceAccount; with a verb it is a change, for the audit log.

    A key, whatever its scopes, neither makes nor ends keys: who finds one cannot make others that outlive it.
    """
    caller: Caller = request.state.caller
    if verb:
        audit(request, caller, verb, "apikeys", namespace, name)
    if caller.method is Method.API_KEY:
        raise ProblemError(403, "an API key may not see or change API keys; come with another kind of token")
    await demand(services, caller, "create", TOKENS, namespace, service_account)
    return caller


async def _find(request: Request, services: Services, namespace: str, key_id: str, verb: str = "") -> KeyRow:
    """The key, for those who may know of it. Others are refused alike, whether it exists or not."""
    row = await services.identity.keys.get(key_id)
    if row is None or row.namespace != namespace:
        await _allowed(request, services, namespace, "", verb, key_id)
        raise _absent(namespace, key_id)
    await _allowed(request, services, namespace, row.service_account, verb, key_id)
    return row


def _absent(namespace: str, key_id: str) -> NotFound:
    return NotFound(f"there is no API key {key_id} in namespace {namespace}")


def _new(request: Request, response: Response, row: KeyRow, text: str) -> NewKeyView:
    request.state.audit["name"] = row.id
    response.headers["Location"] = f"/v1/namespaces/{row.namespace}/apikeys/{row.id}"
    return NewKeyView.model_validate({**fields(row), "key": text})
