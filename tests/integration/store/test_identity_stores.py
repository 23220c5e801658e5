import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from taskflow_api.identity import key_store
from taskflow_api.identity.account_store import AccountRow, PostgresAccounts
from taskflow_api.identity.key_store import KeyRow, PostgresKeys
from taskflow_api.identity.service_accounts import Binding
from taskflow_core.errors import Conflict

pytestmark = pytest.mark.integration
NOW = datetime(2026, 9, 20, 12, tzinfo=UTC)
DAY = timedelta(days=1)
ROW = KeyRow("0" * 16, "team-a", "reports", "u1", "ci", ["read", "write"], b"\0" * 32, NOW, "alice", NOW + DAY)


def row(number: int, **fields: object) -> KeyRow:
    return replace(ROW, id=f"{number:016x}", created_at=NOW + timedelta(seconds=number), **fields)  # type: ignore[arg-type]


async def test_keys_come_back_as_they_were_and_only_those_that_were_asked_for(engine: AsyncEngine) -> None:
    store = PostgresKeys(engine)
    rows = [row(2, service_account="other"), row(1), row(3, namespace="team-b")]
    for each in rows:
        await store.add(each, delete_expired_before=NOW)
    assert await store.get(rows[0].id) == rows[0]
    assert await store.get("f" * 16) is None
    assert await store.of_namespace("team-a") == [rows[1], rows[0]]
    assert await store.of_namespace("team-a", "reports") == [rows[1]]
    assert await store.delete(rows[1].id)
    assert not await store.delete(rows[1].id)
    assert await store.of_namespace("team-a") == [rows[0]]


async def test_a_namespace_has_a_bounded_number_of_keys_and_long_expired_ones_make_room(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_store, "MAX_KEYS", 3)
    store = PostgresKeys(engine)
    for number in range(3):
        await store.add(row(number, expires_at=NOW + number * DAY), delete_expired_before=NOW)
    with pytest.raises(Conflict, match="has 3 API keys, the limit; revoke"):
        await store.add(row(3), delete_expired_before=NOW)
    await store.add(row(4, namespace="team-b"), delete_expired_before=NOW + 9 * DAY)
    await store.add(row(3), delete_expired_before=NOW + timedelta(seconds=1))
    assert [each.id for each in await store.of_namespace("team-a")] == [row(number).id for number in (1, 2, 3)]


async def test_of_rotations_at_once_one_is_made(engine: AsyncEngine) -> None:
    store = PostgresKeys(engine)
    await store.add(ROW, delete_expired_before=NOW)
    ended = await asyncio.gather(
        *(store.rotate(ROW.id, row(number), old_expires_at=NOW + 9 * DAY) for number in range(1, 9)),
        return_exceptions=True,
    )
    assert sorted(type(each).__name__ for each in ended) == ["Conflict"] * 7 + ["NoneType"]
    old, new = await store.of_namespace("team-a")
    # A longer grace does not lengthen its life.
    assert (old.replaced_by, old.expires_at) == (new.id, ROW.expires_at)
    with pytest.raises(Conflict):
        await store.rotate("f" * 16, row(20), old_expires_at=NOW)
    assert len(await store.of_namespace("team-a")) == 2


async def test_the_time_of_last_use_only_grows_and_gone_keys_do_not_matter(engine: AsyncEngine) -> None:
    store = PostgresKeys(engine)
    await store.add(ROW, delete_expired_before=NOW)
    await store.record_use({})
    for at in (NOW + DAY, NOW):
        await store.record_use({ROW.id: at, "f" * 16: at})
        found = await store.get(ROW.id)
        assert found is not None
        assert found.last_used_at == NOW + DAY


async def test_an_account_is_one_of_its_name_bound_and_gone(engine: AsyncEngine) -> None:
    store = PostgresAccounts(engine)
    account = AccountRow("1" * 16, "ann", "$argon2id$", NOW)
    added = await asyncio.gather(
        *(store.add(replace(account, id=f"{number:016x}"), delete_unbound_before=NOW) for number in range(5)),
        return_exceptions=True,
    )
    assert sorted(type(each).__name__ for each in added) == ["Conflict"] * 4 + ["NoneType"]
    found = await store.by_name("ann")
    assert found is not None
    assert found.binding is None
    binding = Binding("team-a", "reports", "u1")
    assert await store.bind("ann", binding)
    assert await store.by_id(found.id) == replace(found, binding=binding)
    assert await store.bind("ann", None)
    assert await store.all() == [found]
    assert not await store.bind("bob", binding)
    assert not await store.bind("ann", binding, "of-another")
    assert await store.delete("ann")
    assert not await store.delete("ann")
    assert await store.by_name("ann") is None


async def test_accounts_that_nobody_bound_go_when_others_come_and_bound_ones_stay(engine: AsyncEngine) -> None:
    store = PostgresAccounts(engine)
    for number, name in enumerate(("ann", "bob", "cid")):
        row = AccountRow(f"{number:016x}", name, "$argon2id$", NOW + number * DAY)
        await store.add(row, delete_unbound_before=NOW)
    await store.bind("ann", Binding("team-a", "reports", "u1"))
    await store.add(AccountRow("f" * 16, "dan", "$argon2id$", NOW + 9 * DAY), delete_unbound_before=NOW + 2 * DAY)
    assert [row.name for row in await store.all()] == ["ann", "cid", "dan"]
