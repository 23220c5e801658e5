import json
import time
from datetime import timedelta
from typing import Any

import jwt
import pytest

from taskflow_api.identity.accounts import (
    ISSUER,
    LOGINS,
)
from taskflow_api.identity.passwords import Passwords
from taskflow_api.identity.service_accounts import Binding
from taskflow_api.settings import RegisterSettings
from taskflow_core.errors import Invalid
from tests.unit.taskflow_api.fakes import Api
from tests.unit.taskflow_api.identity.accounts_site import (
    BINDING,
    PASSWORD,
    REGISTER,
    REPORTS,
    TASKS,
    TOKEN,
    made,
    send,
    token_of,
)
from tests.unit.taskflow_api.identity.issuer import segment
from tests.unit.taskflow_api.identity.memory import SIGNING_KEY, MemoryAccounts, Time, accounts, fast_passwords


async def test_a_new_account_has_no_permissions_until_it_is_bound() -> None:
    api = made()
    answer = await send(api, REGISTER)
    assert (answer.status, answer.json) == (201, {"username": "ann", "id": api.accounts.rows["ann"].id})
    refused = await send(api, TOKEN)
    assert (refused.status, refused.json["code"]) == (401, "unauthenticated")
    assert await api.accounts.bind("ann", BINDING, answer.json["id"])
    answer = await send(api, TOKEN)
    assert (answer.status, answer.json["tokenType"], answer.json["expiresIn"]) == (200, "Bearer", 900)
    assert (await api.call("GET", TASKS, token=answer.json["accessToken"])).status == 200
    # What RBAC does not give the ServiceAccount, the account has not.
    refused = await api.call("GET", "/v1/namespaces/team-b/tasks", token=answer.json["accessToken"])
    assert "system:serviceaccount:team-a:reports may not list" in refused.json["detail"]


async def test_an_account_with_a_deleted_service_account_gets_no_token() -> None:
    api = made()
    await token_of(api)
    await api.accounts.bind("ann", Binding("team-a", "reports", "u0"))
    answer = await send(api, TOKEN)
    assert (answer.status, answer.json["code"]) == (401, "unauthenticated")


async def test_without_the_option_the_routes_do_not_exist() -> None:
    api = Api()
    for path in (REGISTER, TOKEN):
        assert (await send(api, path)).status == 401
        assert (await api.call("POST", path, {"username": "ann", "password": PASSWORD})).status == 404
    document = (await api.call("GET", "/openapi.json", token="")).json
    assert not any(path.startswith("/v1/auth") for path in document["paths"])
    # A token signed with another key is refused.
    signed = jwt.encode({"iss": ISSUER, "aud": ISSUER, "sub": "x", "exp": time.time() + 60}, SIGNING_KEY)
    assert (await api.call("GET", TASKS, token=signed)).status == 401


async def test_the_password_is_stored_as_argon2_and_never_returned(capsys: Any) -> None:
    api = made()
    await send(api, REGISTER)
    short = await send(api, REGISTER, "bob", "too short 1")
    assert (short.status, b"too short 1" in short.body) == (422, False)
    await send(api, TOKEN, password="wrong horse battery")
    assert api.accounts.rows["ann"].password_hash.startswith("$argon2id$")
    said = capsys.readouterr().out
    assert "horse" not in said + json.dumps([repr(row) for row in api.accounts.rows.values()])
    assert "too short 1" not in said


def test_passwords_are_hashed_with_the_parameters_of_rfc_9106() -> None:
    assert Passwords()._dummy_hash.startswith("$argon2id$v=19$m=65536,t=3,p=4$")


async def test_an_unknown_account_and_a_wrong_password_get_the_same_answer() -> None:
    api = made()
    await send(api, REGISTER)
    wrong = await send(api, TOKEN, password="wrong horse battery")
    unknown = await send(api, TOKEN, username="nobody")
    assert (wrong.status, unknown.status) == (401, 401)
    assert {**wrong.json, "requestId": ""} == {**unknown.json, "requestId": ""}
    assert wrong.headers.keys() == unknown.headers.keys()


async def test_an_unknown_account_costs_the_same_work() -> None:
    passwords = fast_passwords()
    stored = await passwords.hash(PASSWORD)
    verified: list[str] = []
    verify = passwords._verify

    def noted(stored: str, password: str) -> bool:
        verified.append(stored)
        return verify(stored, password)

    passwords._verify = noted  # type: ignore[method-assign]
    assert await passwords.verify(stored, PASSWORD)
    assert not await passwords.verify(stored, "another")
    assert not await passwords.verify(None, PASSWORD)
    assert len(verified) == 3
    assert verified[2].rpartition("$")[0].rpartition("$")[0] == stored.rpartition("$")[0].rpartition("$")[0]


async def test_the_dummy_hash_authenticates_no_one() -> None:
    passwords = fast_passwords()
    passwords._dummy_hash = await passwords.hash(PASSWORD)
    assert not await passwords.verify(None, PASSWORD)


async def test_background_work_ends_with_its_account() -> None:
    api = made()
    caller = await api.identity.tokens.authenticate(await token_of(api))
    assert caller is not None
    assert await api.identity.is_valid(caller)
    await api.accounts.bind("ann", Binding("team-a", "others", "u2"))
    assert not await api.identity.is_valid(caller)
    await api.accounts.bind("ann", BINDING)
    assert await api.identity.is_valid(caller)
    await api.accounts.delete("ann")
    assert not await api.identity.is_valid(caller)
    assert not await Api().identity.is_valid(caller)


async def test_a_taken_name_is_told_apart_from_a_new_one_neither_by_registration_nor_by_login() -> None:
    api = made()
    await send(api, REGISTER)
    await api.accounts.bind("ann", BINDING)
    owner = api.accounts.rows["ann"]
    stranger: list[tuple[Any, ...]] = []
    for name in ("ann", "bob"):
        registered = await send(api, REGISTER, name, "another password", client="192.0.2.9")
        logins = [await send(api, TOKEN, name, "another password", client="192.0.2.9") for _ in range(LOGINS + 1)]
        told = [{**each.json, "requestId": ""} for each in logins]
        stranger.append((registered.status, registered.headers.keys(), len(registered.json["id"]), told))
    assert stranger[0] == stranger[1]
    # Nothing was taken over: neither the password, nor by an administrator who is given the stranger's id.
    assert api.accounts.rows["ann"] == owner
    assert (await send(api, TOKEN)).status == 200
    again = await send(api, REGISTER, "ann", "another password", client="192.0.2.10")
    assert not await api.accounts.bind("ann", BINDING, again.json["id"])


@pytest.mark.parametrize("username", ["", "Ann", "a b", "a/b", "system:admin", "-a", "a" * 64, "a\u0000b", "ä"])
async def test_a_name_that_could_be_mistaken_is_refused(username: str) -> None:
    assert (await send(made(), REGISTER, username)).status == 422


async def test_a_token_ends_with_its_account_its_binding_and_its_service_account() -> None:
    for end in ("delete", "unbind", "rebind", "service account"):
        api = made()
        token = await token_of(api)
        assert (await api.call("GET", TASKS, token=token)).status == 200
        if end == "delete":
            await api.accounts.delete("ann")
            # A new account of the same name is another account.
            await send(api, REGISTER)
            await api.accounts.bind("ann", BINDING)
        elif end == "unbind":
            await api.accounts.bind("ann", None)
        elif end == "rebind":
            await api.accounts.bind("ann", Binding("team-a", "gone", "u9"))
        else:
            api.kube.answers.pop(REPORTS)
        api.time.seconds += 10
        assert (await api.call("GET", TASKS, token=token)).status == 401, end


async def test_hostile_tokens_of_accounts_are_refused() -> None:
    api = made()
    good = jwt.decode(await token_of(api), SIGNING_KEY, ["HS256"], audience=ISSUER)

    def signed(key: bytes = SIGNING_KEY, algorithm: str = "HS256", **fields: Any) -> str:
        claims = {name: value for name, value in (good | fields).items() if value is not None}
        return jwt.encode(claims, key, algorithm)

    assert (await api.call("GET", TASKS, token=signed())).status == 200
    hostile = [
        signed(b"x" * 32),
        signed(exp=int(time.time()) - 1),
        signed(exp=None),
        signed(aud="other"),
        signed(aud=None),
        signed(sub="nobody"),
        signed(sub=None),
        signed(sub="ann"),
        signed(b"k" * 64, "HS512"),
        signed(nbf=time.time() + 60),
        f"{segment({'alg': 'none'})}.{segment(good)}.",
        signed()[:-2] + "AA",
    ]
    for token in hostile:
        assert (await api.call("GET", TASKS, token=token)).status == 401, token


async def test_a_token_is_as_short_lived_as_it_says() -> None:
    store = MemoryAccounts()
    found = accounts(Api().kube, store, Time(), timedelta(seconds=60))
    await found.register("ann", PASSWORD, "")
    await store.bind("ann", BINDING)
    api = made()
    found._service_accounts._kube = api.kube
    claims = jwt.decode(await found.token("ann", PASSWORD, ""), SIGNING_KEY, ["HS256"], audience=ISSUER)
    assert claims["exp"] - claims["iat"] == 60
    assert set(claims) == {"iss", "aud", "sub", "iat", "exp"}


async def test_login_attempts_are_audited(capsys: Any) -> None:
    api = made()
    token = await token_of(api)
    await send(api, TOKEN, password="wrong horse battery")
    await api.call("POST", TASKS, {"name": "x", "spec": {"handler": "a.b"}}, token=token)
    lines = [line for line in capsys.readouterr().out.splitlines() if "audit" in line]
    assert ["subject=ann" in line for line in lines] == [True] * 4
    assert ["verb=register" in lines[0], "status=201" in lines[0]] == [True, True]
    assert [f"status={status}" in line for status, line in zip((200, 401), lines[1:3], strict=True)] == [True, True]
    assert ["method=account" in lines[3], "user=system:serviceaccount:team-a:reports" in lines[3]] == [True, True]


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({}, "needs one of"),
        ({"signing_key": "k" * 32, "signing_key_file": "/dev/null"}, "needs one of"),
        ({"signing_key": "k" * 31}, "expected at least 32 bytes, found 31"),
        ({"signing_key": ""}, "found 0"),
        ({"signing_key_file": "/dev/null"}, "found 0"),
        ({"signing_key_file": "/no/such/file"}, "No such file"),
    ],
)
def test_a_signing_key_that_is_missing_double_or_short_is_refused(environment: dict[str, Any], said: str) -> None:
    with pytest.raises(Invalid, match=said) as caught:
        RegisterSettings(enabled=True, **environment).key()
    assert "kkkk" not in str(caught.value)


def test_a_signing_key_can_be_read_from_a_file(tmp_path: Any) -> None:
    (tmp_path / "key").write_text("k" * 32 + "\n")
    assert RegisterSettings(enabled=True, signing_key_file=str(tmp_path / "key")).key() == b"k" * 32
