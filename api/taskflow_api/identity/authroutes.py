"""Registration and tokens of accounts. These routes need no token, so what they cost is bounded."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import APIRouter, Request

from taskflow_api.documented import PROBLEMS
from taskflow_api.identity.accounts import Accounts, TooManyError, UnboundError, WrongPasswordError
from taskflow_api.identity.schemas import AccountView, Credentials, TokenView
from taskflow_api.problems import ProblemError

REGISTER, TOKEN = "/v1/auth/register", "/v1/auth/token"
PATHS = frozenset({REGISTER, TOKEN})


def router(accounts: Accounts) -> APIRouter:
    """The routes for these accounts."""
    routes = APIRouter(tags=["auth"], responses=PROBLEMS)

    @routes.post(REGISTER, status_code=201, operation_id="registerAccount", summary="Make an account")
    async def register(request: Request, body: Credentials) -> AccountView:
        """It may do nothing until an administrator binds it to a ServiceAccount."""
        async with _answered(request, "register", body.username):
            await accounts.register(body.username, body.password.get_secret_value())
        return AccountView(username=body.username, bound=False)

    @routes.post(TOKEN, operation_id="createToken", summary="A token for an account")
    async def token(request: Request, body: Credentials) -> TokenView:
        """For some minutes. Five wrong passwords make the account's next attempts wait."""
        async with _answered(request, "login", body.username):
            made = await accounts.token(body.username, body.password.get_secret_value())
        return TokenView(access_token=made, expires_in=int(accounts.life.total_seconds()))

    return routes


@asynccontextmanager
async def _answered(request: Request, verb: str, username: str) -> AsyncIterator[None]:
    """Write down who tried what, and tell what became of it."""
    request.state.audit = {"method": "password", "subject": username, "verb": verb, "resource": "accounts"}
    try:
        yield
    except TooManyError as error:
        raise ProblemError(429, str(error), Retry_After=str(error.seconds)) from error
    except WrongPasswordError as error:
        raise ProblemError(401, str(error), WWW_Authenticate='Bearer realm="taskflow"') from error
    except UnboundError as error:
        raise ProblemError(403, str(error), code="account-not-bound") from error
