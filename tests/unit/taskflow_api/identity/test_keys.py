import asyncio
from datetime import timedelta
from typing import Any

import pytest

from taskflow_api.http.kubernetes_auth import Method, Scope
from taskflow_api.identity.key_format import ApiKey
from taskflow_api.identity.keys import KEPT_AFTER_EXPIRY, Keys, NewKey
from taskflow_core.errors import Conflict, Forbidden, NotFound, Unavailable
from tests.unit.taskflow_api.fakes import FakeKube
from tests.unit.taskflow_api.identity.memory import NOW, MemoryKeys, Time, keys

PATH = "/api/v1/namespaces/team-a/serviceaccounts/reports"
WANTED = NewKey("team-a", "reports", "ci", (Scope.READ, Scope.WRITE), timedelta(days=90))
OTHER = "f" * 64


def account(uid: str = "u1", **metadata: Any) -> dict[str, Any]:
    return {"metadata": {"name": "reports", "uid": uid, **metadata}}


class Desk:
    """Keys on a cluster with one ServiceAccount."""

    def __init__(self) -> None:
        self.kube, self.store, self.time = FakeKube(), MemoryKeys(), Time()
        self.kube.answers[PATH] = account()
        self.keys: Keys = keys(self.kube, self.store, self.time)


def test_only_the_exact_text_of_a_key_parses() -> None:
    made = ApiKey.new()
    text = str(made)
    assert text.startswith(f"tf_{made.id}_")
    assert ApiKey.parse(text) == made
    assert made.matches(made.digest)
    assert not ApiKey(made.id, OTHER).matches(made.digest)
    assert len(made.secret) * 4 == 256
    assert made.secret not in repr(made)


@pytest.mark.parametrize("place", range(3, len(str(ApiKey("0" * 16, "0" * 64)))))
def test_one_wrong_character_is_detected_without_the_database(place: int) -> None:
    text = str(ApiKey("0123456789abcdef", "5" * 64))
    wrong = "e" if text[place] != "e" else "d"
    assert ApiKey.parse(text[:place] + wrong + text[place + 1 :]) is None


@pytest.mark.parametrize("text", ["", "tf_", "tf__", "TF_", "tf_" + "a" * 16 + "_" + "b" * 64, "x" * 20_000])
def test_other_texts_are_not_keys(text: str) -> None:
    assert ApiKey.parse(text) is None


async def test_a_key_resolves_to_its_service_account_and_its_secret_is_not_stored() -> None:
    desk = Desk()
    row, text = await desk.keys.create(WANTED, "alice")
    assert text.secret not in repr(row)
    caller = await desk.keys.caller(str(text))
    assert caller is not None
    assert caller.username == "system:serviceaccount:team-a:reports"
    assert caller.groups == ("system:serviceaccounts", "system:serviceaccounts:team-a", "system:authenticated")
    assert (caller.uid, caller.method, caller.subject) == ("u1", Method.API_KEY, text.id)
    assert caller.scopes == frozenset(Scope)
    assert await desk.keys.caller(str(ApiKey(text.id, OTHER))) is None
    assert await desk.keys.caller(str(ApiKey.new())) is None


async def test_a_key_is_read_once_in_10_seconds_and_ends_to_the_second() -> None:
    desk = Desk()
    _, text = await desk.keys.create(WANTED, "alice")
    for _ in range(3):
        assert await desk.keys.caller(str(text)) is not None
    assert desk.store.reads == 1
    assert len(desk.kube.calls) == 2
    desk.time.seconds += 10
    assert await desk.keys.caller(str(text)) is not None
    assert desk.store.reads == 2
    desk.time.seconds = timedelta(days=90).total_seconds() - 1
    assert await desk.keys.caller(str(text)) is not None
    desk.time.seconds += 1
    assert await desk.keys.caller(str(text)) is None


@pytest.mark.parametrize("after", [None, account("u2"), account(deletionTimestamp="2026-09-20T12:00:00Z")])
async def test_with_its_service_account_a_key_ends_even_when_another_gets_its_name(
    after: dict[str, Any] | None,
) -> None:
    desk = Desk()
    _, text = await desk.keys.create(WANTED, "alice")
    assert await desk.keys.caller(str(text)) is not None
    desk.kube.answers.pop(PATH)
    if after:
        desk.kube.answers[PATH] = after
    desk.time.seconds += 10
    for _ in range(2):
        assert await desk.keys.caller(str(text)) is None


async def test_a_cached_successor_validates_only_its_own_keys() -> None:
    desk = Desk()
    _, old = await desk.keys.create(WANTED, "alice")
    desk.kube.answers[PATH] = account("u2")
    _, new = await desk.keys.create(WANTED, "alice")
    for _ in range(2):
        assert await desk.keys.caller(str(new)) is not None
        assert await desk.keys.caller(str(old)) is None


async def test_a_key_needs_an_existing_service_account() -> None:
    desk = Desk()
    desk.kube.answers.clear()
    with pytest.raises(NotFound, match="ServiceAccount reports does not exist in namespace team-a"):
        await desk.keys.create(WANTED, "alice")
    desk.kube.failure = Forbidden("serviceaccounts is forbidden")
    with pytest.raises(Unavailable):
        await desk.keys.create(WANTED, "alice")
    assert desk.store.rows == {}


async def test_during_rotation_two_keys_are_valid_and_a_key_is_rotated_once() -> None:
    desk = Desk()
    old, old_text = await desk.keys.create(WANTED, "alice")
    desk.time.seconds = 3600
    new, new_text = await desk.keys.rotate(old, timedelta(hours=1), "carol")
    assert (new.scopes, new.service_account, new.created_by) == (old.scopes, "reports", "carol")
    assert new.expires_at - new.created_at == old.expires_at - old.created_at
    for text in (old_text, new_text):
        assert await desk.keys.caller(str(text)) is not None
    with pytest.raises(Conflict):
        await desk.keys.rotate(old, timedelta(hours=1), "carol")
    desk.time.seconds = 7200
    assert await desk.keys.caller(str(old_text)) is None
    assert await desk.keys.caller(str(new_text)) is not None


async def test_rotating_never_makes_the_old_key_live_longer() -> None:
    desk = Desk()
    old, _ = await desk.keys.create(WANTED, "alice")
    desk.time.seconds = timedelta(days=89).total_seconds()
    await desk.keys.rotate(old, timedelta(days=30), "alice")
    assert desk.store.rows[old.id].expires_at == old.expires_at


async def test_a_revoked_key_ends_at_once() -> None:
    desk = Desk()
    row, text = await desk.keys.create(WANTED, "alice")
    assert await desk.keys.caller(str(text)) is not None
    assert await desk.keys.revoke(row.id)
    assert await desk.keys.caller(str(text)) is None
    assert not await desk.keys.revoke(row.id)


async def test_old_expired_keys_are_deleted_when_a_key_is_created() -> None:
    desk = Desk()
    old, _ = await desk.keys.create(WANTED, "alice")
    desk.time.seconds = (WANTED.lifetime + KEPT_AFTER_EXPIRY).total_seconds()
    await desk.keys.create(WANTED, "alice")
    assert old.id in desk.store.rows
    desk.time.seconds += 1
    await desk.keys.create(WANTED, "alice")
    assert old.id not in desk.store.rows


async def test_uses_are_recorded_later_and_survive_a_database_outage() -> None:
    desk = Desk()
    row, text = await desk.keys.create(WANTED, "alice")
    await desk.keys.caller(str(text))
    assert desk.store.rows[row.id].last_used_at is None
    desk.store.failure = Unavailable("away")
    await desk.keys.record_uses()
    desk.store.failure = None
    await desk.keys.record_uses()
    assert desk.store.rows[row.id].last_used_at == NOW
    # Who was refused did not use it.
    desk.time.seconds = 60
    await desk.keys.caller(str(ApiKey(text.id, OTHER)))
    await desk.keys.record_uses()
    assert desk.store.rows[row.id].last_used_at == NOW


async def test_the_last_uses_are_recorded_at_shutdown() -> None:
    desk = Desk()
    row, text = await desk.keys.create(WANTED, "alice")
    noting = asyncio.create_task(desk.keys.run())
    await asyncio.sleep(0)
    await desk.keys.caller(str(text))
    noting.cancel()
    await asyncio.gather(noting, return_exceptions=True)
    assert desk.store.rows[row.id].last_used_at == NOW


async def test_a_database_outage_does_not_make_a_key_invalid() -> None:
    desk = Desk()
    _, text = await desk.keys.create(WANTED, "alice")
    desk.store.failure = Unavailable("away")
    with pytest.raises(Unavailable):
        await desk.keys.caller(str(text))


async def test_a_key_is_valid_until_it_expires_is_revoked_or_its_service_account_is_deleted() -> None:
    desk = Desk()
    first, _ = await desk.keys.create(WANTED, "alice")
    second, _ = await desk.keys.create(WANTED, "alice")
    assert await desk.keys.is_valid(first.id)
    await desk.keys.revoke(first.id)
    assert [await desk.keys.is_valid(each.id) for each in (first, second)] == [False, True]
    desk.kube.answers[PATH] = account("u2")
    desk.time.seconds += 20
    assert not await desk.keys.is_valid(second.id)
    desk.kube.answers[PATH] = account()
    assert await desk.keys.is_valid(second.id)
    desk.time.seconds += WANTED.lifetime.total_seconds()
    assert not await desk.keys.is_valid(second.id)
