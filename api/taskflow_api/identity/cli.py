"""Manages API keys and accounts, with the database and Kubernetes access of the REST API.

Exit codes: 0 done; 1 the database or the API server does not answer, try again; 2 the arguments or the settings are
wrong; 3 the object does not exist, or the change is not allowed.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pydantic import TypeAdapter, ValidationError

from taskflow_api.http.kubernetes_auth import Scope
from taskflow_api.identity.account_store import PostgresAccounts
from taskflow_api.identity.key_store import PostgresKeys
from taskflow_api.identity.keys import DEFAULT_LIFETIME, MAX_LIFETIME, MIN_LIFETIME, Keys, NewKey
from taskflow_api.identity.schemas import ServiceAccountName
from taskflow_api.identity.service_accounts import ServiceAccounts
from taskflow_core.errors import Invalid, NotFound, TaskflowError, Unavailable
from taskflow_core.kube.client import KubeClient
from taskflow_core.settings import UNUSABLE, DatabaseSettings, explain
from taskflow_core.store.engine import create_engine

DONE, RETRY, USAGE, REFUSED = 0, 1, 2, 3
CREATED_BY = "administrator"
"""`created_by` of keys that this command creates."""
_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Stores:
    """What the commands read and change."""

    keys: Keys
    accounts: PostgresAccounts
    service_accounts: ServiceAccounts


def main(arguments: Sequence[str]) -> int:
    """Run one command; returns the exit code."""
    chosen = _parser().parse_args(arguments)
    try:
        for line in asyncio.run(_run(chosen)):
            print(line)  # noqa: T201 - this is a command
    except UNUSABLE as error:
        return _fail(USAGE, *explain(error))
    except Invalid as error:
        return _fail(USAGE, str(error))
    except Unavailable as error:
        return _fail(RETRY, str(error))
    except TaskflowError as error:
        return _fail(REFUSED, str(error))
    return DONE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m taskflow_api", description=__doc__)
    kinds = parser.add_subparsers(dest="kind", required=True)
    keys = kinds.add_parser("keys", help="API keys").add_subparsers(dest="action", required=True)
    create = keys.add_parser("create", help="create a key and print it, only this once")
    create.add_argument("--namespace", required=True, type=_dns_name)
    create.add_argument("--service-account", required=True, type=_dns_name)
    create.add_argument("--scope", action="append", choices=[each.value for each in Scope], help="default: all scopes")
    create.add_argument("--name", default="", help="a label for people")
    create.add_argument(
        "--days", type=_days, default=DEFAULT_LIFETIME, help=f"lifetime in days; default {DEFAULT_LIFETIME.days}"
    )
    keys.add_parser("list", help="list the keys of a namespace").add_argument(
        "--namespace", required=True, type=_dns_name
    )
    keys.add_parser("revoke", help="revoke a key").add_argument("id", help="id of the key, the part before its secret")
    accounts = kinds.add_parser("accounts", help="accounts with a password").add_subparsers(
        dest="action", required=True
    )
    accounts.add_parser("list", help="list all accounts")
    bind = accounts.add_parser("bind", help="bind an account to a ServiceAccount")
    bind.add_argument("username")
    # Anyone can register any name; only who registered this account was told its id.
    bind.add_argument("id", help="the id that the registration returned to its owner")
    bind.add_argument("service_account", type=_full_name, metavar="NAMESPACE/SERVICEACCOUNT")
    accounts.add_parser("unbind", help="remove the binding of an account").add_argument("username")
    accounts.add_parser("delete", help="delete an account").add_argument("username")
    return parser


def _dns_name(text: str) -> str:
    try:
        return TypeAdapter[str](ServiceAccountName).validate_python(text)
    except ValidationError:
        raise argparse.ArgumentTypeError(f"expected a Kubernetes name, found {text!r}") from None


def _full_name(text: str) -> tuple[str, str]:
    namespace, _, name = text.partition("/")
    return _dns_name(namespace), _dns_name(name)


def _days(text: str) -> timedelta:
    try:
        lifetime = float(text) * _DAY
    except (ValueError, OverflowError):
        lifetime = timedelta(0)
    if not MIN_LIFETIME <= lifetime <= MAX_LIFETIME:
        raise argparse.ArgumentTypeError(
            f"expected a number of days from {MIN_LIFETIME / _DAY:.3f} to {MAX_LIFETIME.days}, found {text!r}"
        )
    return lifetime


async def _run(chosen: argparse.Namespace) -> list[str]:
    async with _stores() as stores:
        return await (_keys(stores, chosen) if chosen.kind == "keys" else _accounts(stores, chosen))


@asynccontextmanager
async def _stores() -> AsyncIterator[Stores]:
    engine = create_engine(DatabaseSettings(), application_name="taskflow-api-cli", pool_size=1)
    try:
        kube = await KubeClient.connect()
        try:
            service_accounts = ServiceAccounts(kube, time.monotonic)
            keys = Keys(PostgresKeys(engine), service_accounts, time.monotonic, lambda: datetime.now(UTC))
            yield Stores(keys, PostgresAccounts(engine), service_accounts)
        finally:
            await kube.close()
    finally:
        await engine.dispose()


async def _keys(stores: Stores, chosen: argparse.Namespace) -> list[str]:
    if chosen.action == "create":
        scopes = tuple(map(Scope, chosen.scope or list(Scope)))
        new = NewKey(chosen.namespace, chosen.service_account, chosen.name, scopes, chosen.days)
        row, text = await stores.keys.create(new, CREATED_BY)
        # On stderr, because only the key goes to stdout, where it can be redirected.
        print(f"key {row.id}, valid until {row.expires_at:%Y-%m-%d}; it is not shown again", file=sys.stderr)  # noqa: T201
        return [str(text)]
    if chosen.action == "revoke":
        if not await stores.keys.revoke(chosen.id):
            raise NotFound(f"API key {chosen.id} does not exist")
        return [f"revoked {chosen.id}; it stops working everywhere within 10 s"]
    rows = await stores.keys.of_namespace(chosen.namespace)
    lines = [("ID", "SERVICEACCOUNT", "SCOPES", "EXPIRES", "LAST USED", "NAME")]
    for row in rows:
        used = "never" if row.last_used_at is None else f"{row.last_used_at:%Y-%m-%d %H:%M}"
        lines.append(
            (row.id, row.service_account, ",".join(row.scopes), f"{row.expires_at:%Y-%m-%d %H:%M}", used, row.name)
        )
    return _table(lines)


async def _accounts(stores: Stores, chosen: argparse.Namespace) -> list[str]:
    if chosen.action == "list":
        found = [
            (row.name, row.id, f"{row.binding.namespace}/{row.binding.name}" if row.binding else "-")
            for row in await stores.accounts.all()
        ]
        return _table([("USERNAME", "ID", "SERVICEACCOUNT"), *found])
    name = chosen.username
    if chosen.action == "bind":
        binding = await stores.service_accounts.find(*chosen.service_account)
        if binding is None:
            namespace, wanted = chosen.service_account
            raise NotFound(f"ServiceAccount {wanted} does not exist in namespace {namespace}")
        if not await stores.accounts.bind(name, binding, chosen.id):
            raise NotFound(f"there is no account {name} with the id {chosen.id}; somebody else may have taken the name")
        done = True
    else:
        done = await (stores.accounts.bind(name, None) if chosen.action == "unbind" else stores.accounts.delete(name))
    if not done:
        raise NotFound(f"account {name} does not exist")
    return [f"{name}: {chosen.action} done; it takes effect everywhere within 10 s"]


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def _fail(code: int, *messages: str) -> int:
    for message in messages:
        print(f"taskflow_api: {message}", file=sys.stderr)  # noqa: T201 - this is a command
    return code
