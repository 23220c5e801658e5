"""`python -m taskflow_api keys|accounts ...`: the first key, and accounts, by whoever has the API's database and Kubernetes access.

Exit codes: 0 done; 1 the database or the API server does not answer, so try again; 2 the call or the settings are wrong;
3 there is no such thing, or it may not be so.
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

from taskflow_api.auth import Scope
from taskflow_api.identity.accountstore import PostgresAccounts
from taskflow_api.identity.keys import DEFAULT_LIFE, MAX_LIFE, MIN_LIFE, Keys, Wanted
from taskflow_api.identity.keystore import PostgresKeys
from taskflow_api.identity.schemas import ServiceAccountName
from taskflow_api.identity.serviceaccounts import ServiceAccounts
from taskflow_core.errors import Invalid, NotFound, TaskflowError, Unavailable
from taskflow_core.kube.client import KubeClient
from taskflow_core.settings import DatabaseSettings, explain
from taskflow_core.store.engine import create_engine

DONE, RETRY, USAGE, REFUSED = 0, 1, 2, 3
CREATED_BY = "administrator"
"""Of keys that were made here."""
_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Office:
    """What the commands work on."""

    keys: Keys
    accounts: PostgresAccounts
    service_accounts: ServiceAccounts


def main(arguments: Sequence[str]) -> int:
    """Run one command; returns the exit code."""
    chosen = _parser().parse_args(arguments)
    try:
        for line in asyncio.run(_run(chosen)):
            print(line)  # noqa: T201 - a command line prints
    except ValidationError as error:
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
    create = keys.add_parser("create", help="make one; prints it, this once")
    create.add_argument("--namespace", required=True, type=_dns_name)
    create.add_argument("--service-account", required=True, type=_dns_name)
    create.add_argument("--scope", action="append", choices=[each.value for each in Scope], help="default: both")
    create.add_argument("--name", default="", help="who or what uses it")
    create.add_argument(
        "--days", type=_days, default=DEFAULT_LIFE, help=f"how long it is good; default {DEFAULT_LIFE.days}"
    )
    keys.add_parser("list", help="those of a namespace").add_argument("--namespace", required=True, type=_dns_name)
    keys.add_parser("revoke", help="end one").add_argument("id", help="the part of the key before its secret")
    accounts = kinds.add_parser("accounts", help="accounts with a password").add_subparsers(
        dest="action", required=True
    )
    accounts.add_parser("list", help="all of them")
    bind = accounts.add_parser("bind", help="let one stand for a ServiceAccount")
    bind.add_argument("username")
    bind.add_argument("service_account", type=_full_name, metavar="NAMESPACE/SERVICEACCOUNT")
    accounts.add_parser("unbind", help="let one stand for nothing").add_argument("username")
    accounts.add_parser("delete", help="remove one").add_argument("username")
    return parser


def _dns_name(text: str) -> str:
    try:
        return TypeAdapter[str](ServiceAccountName).validate_python(text)
    except ValidationError:
        raise argparse.ArgumentTypeError(f"expected a name as Kubernetes has them, found {text!r}") from None


def _full_name(text: str) -> tuple[str, str]:
    namespace, _, name = text.partition("/")
    return _dns_name(namespace), _dns_name(name)


def _days(text: str) -> timedelta:
    try:
        life = float(text) * _DAY
    except (ValueError, OverflowError):
        life = timedelta(0)
    if not MIN_LIFE <= life <= MAX_LIFE:
        raise argparse.ArgumentTypeError(
            f"expected a number of days from {MIN_LIFE / _DAY:.3f} to {MAX_LIFE.days}, found {text!r}"
        )
    return life


async def _run(chosen: argparse.Namespace) -> list[str]:
    async with _office() as office:
        return await (_keys(office, chosen) if chosen.kind == "keys" else _accounts(office, chosen))


@asynccontextmanager
async def _office() -> AsyncIterator[Office]:
    engine = create_engine(DatabaseSettings(), application_name="taskflow-api-cli", pool_size=1)
    try:
        kube = await KubeClient.connect()
        try:
            service_accounts = ServiceAccounts(kube, time.monotonic)
            keys = Keys(PostgresKeys(engine), service_accounts, time.monotonic, lambda: datetime.now(UTC))
            yield Office(keys, PostgresAccounts(engine), service_accounts)
        finally:
            await kube.close()
    finally:
        await engine.dispose()


async def _keys(office: Office, chosen: argparse.Namespace) -> list[str]:
    if chosen.action == "create":
        scopes = tuple(map(Scope, chosen.scope or list(Scope)))
        wanted = Wanted(chosen.namespace, chosen.service_account, chosen.name, scopes, chosen.days)
        row, text = await office.keys.create(wanted, CREATED_BY)
        # Beside the key, which alone goes to stdout, so that it can be led somewhere.
        print(f"key {row.id}, good until {row.expires_at:%Y-%m-%d}; it is not shown again", file=sys.stderr)  # noqa: T201
        return [str(text)]
    if chosen.action == "revoke":
        if not await office.keys.revoke(chosen.id):
            raise NotFound(f"there is no API key {chosen.id}")
        return [f"revoked {chosen.id}; within 10 s nobody gets in with it"]
    rows = await office.keys.of_namespace(chosen.namespace)
    lines = [("ID", "SERVICEACCOUNT", "SCOPES", "EXPIRES", "LAST USED", "NAME")]
    for row in rows:
        used = "never" if row.last_used_at is None else f"{row.last_used_at:%Y-%m-%d %H:%M}"
        lines.append(
            (row.id, row.service_account, ",".join(row.scopes), f"{row.expires_at:%Y-%m-%d %H:%M}", used, row.name)
        )
    return _table(lines)


async def _accounts(office: Office, chosen: argparse.Namespace) -> list[str]:
    if chosen.action == "list":
        found = [
            (row.name, f"{row.binding.namespace}/{row.binding.name}" if row.binding else "-")
            for row in await office.accounts.all()
        ]
        return _table([("USERNAME", "SERVICEACCOUNT"), *found])
    name = chosen.username
    if chosen.action == "bind":
        binding = await office.service_accounts.find(*chosen.service_account)
        if binding is None:
            namespace, wanted = chosen.service_account
            raise NotFound(f"there is no ServiceAccount {wanted} in namespace {namespace}")
        done = await office.accounts.bind(name, binding)
    else:
        done = await (office.accounts.bind(name, None) if chosen.action == "unbind" else office.accounts.delete(name))
    if not done:
        raise NotFound(f"there is no account {name}")
    return [f"{name}: {chosen.action} done; within 10 s it holds everywhere"]


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def _fail(code: int, *messages: str) -> int:
    for message in messages:
        print(f"taskflow_api: {message}", file=sys.stderr)  # noqa: T201 - a command line prints
    return code
