"""Routes that register accounts and issue their tokens. They need no token, so their use is limited."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import APIRouter, Request

from taskflow_api.http.addresses import source
from taskflow_api.http.openapi import PROBLEMS
from taskflow_api.http.problems import ProblemError
from taskflow_api.identity.accounts import Accounts, TooManyError, WrongPasswordError
from taskflow_api.identity.schemas import AccountView, Credentials, TokenView

REGISTER, TOKEN = "/v1/auth/register", "/v1/auth/token"
PATHS = frozenset({REGISTER, TOKEN})


def router(accounts: Accounts) -> APIRouter:
    """The routes on these accounts."""
    routes = APIRouter(tags=["auth"], responses=PROBLEMS)

    @routes.post(REGISTER, status_code=201, operation_id="registerAccount", summary="Register an account")
    async def register(request: Request, body: Credentials) -> AccountView:
        """Give the id to an administrator, who binds the account to a ServiceAccount. Until then it has no permissions.

        The answer is the same if the name is taken, but then no account has the id.
        """
        async with _audited(request, "register", body.username):
            made = await accounts.register(body.username, body.password.get_secret_value(), source(request.scope))
        return AccountView(username=body.username, id=made)

    @routes.post(TOKEN, operation_id="createToken", summary="Get a token for an account")
    async def token(request: Request, body: Credentials) -> TokenView:
        """The token is valid for a few minutes. After five wrong passwords, this client has to wait."""
        async with _audited(request, "login", body.username):
            made = await accounts.token(body.username, body.password.get_secret_value(), source(request.scope))
        return TokenView(access_token=made, expires_in=int(accounts.lifetime.total_seconds()))

    return routes


@asynccontextmanager
async def _audited(request: Request, verb: str, username: str) -> AsyncIterator[None]:
    """Set the audit record, and turn errors into problems."""
    request.state.audit = {
        "method": "password",
        "subject": username,
        "verb": verb,
        "resource": "accounts",
        "source": source(request.scope),
    }
    try:
        yield
    except TooManyError as error:
        raise ProblemError(429, str(error), Retry_After=str(error.seconds)) from error
    except WrongPasswordError as error:
        raise ProblemError(401, str(error), WWW_Authenticate='Bearer realm="taskflow"') from error
