import asyncio
import json
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import jwt
import pytest

from taskflow_api.gcra.counters import RETRY_SECONDS, LocalCounter
from taskflow_api.gcra.limit import Limit, LimitState
from taskflow_api.identity.accounts import ISSUER, LOGIN_SECONDS, LOGINS, REGISTRATIONS
from taskflow_api.identity.attempt_limits import AttemptLimit
from taskflow_api.identity.passwords import MAX_CONCURRENT, MAX_WAITING, Passwords
from taskflow_api.identity.service_accounts import Binding
from taskflow_api.settings import RegisterSettings
from taskflow_core.errors import Invalid, Unavailable
from tests.unit.taskflow_api.fakes import Answer, Api
from tests.unit.taskflow_api.identity.issuer import segment
from tests.unit.taskflow_api.identity.memory import SIGNING_KEY, MemoryAccounts, Time, accounts, fast_passwords

REGISTER, TOKEN, TASKS = "/v1/auth/register", "/v1/auth/token", "/v1/namespaces/team-a/tasks"
REPORTS = "/api/v1/namespaces/team-a/serviceaccounts/reports"
PASSWORD = "correct horse battery"
BINDING = Binding("team-a", "reports", "u1")


def made() -> Api:
    api = Api(register=True)
    api.kube.answers[REPORTS] = {"metadata": {"uid": "u1"}}
    api.kube.allowed["system:serviceaccount:team-a:reports"] = "team-a"
    return api


async def send(api: Api, path: str, username: str = "ann", password: str = PASSWORD) -> Answer:
    return await api.call("POST", path, {"username": username, "password": password}, token="")


async def token_of(api: Api) -> str:
    await send(api, REGISTER)
    await api.accounts.bind("ann", BINDING)
    answer = await send(api, TOKEN)
    assert answer.status == 200, answer.body
    return str(answer.json["accessToken"])


async def test_a_new_account_has_no_permissions_until_it_is_bound() -> None:
    api = made()
    answer = await send(api, REGISTER)
    assert (answer.status, answer.json) == (201, {"username": "ann", "bound": False})
    refused = await send(api, TOKEN)
    assert (refused.status, refused.json["code"]) == (403, "account-not-bound")
    await api.accounts.bind("ann", BINDING)
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
    assert (answer.status, answer.json["code"]) == (403, "account-not-bound")


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


@pytest.mark.parametrize("username", ["ann", "nobody"])
async def test_five_wrong_passwords_block_further_attempts_for_a_while(username: str) -> None:
    api = made()
    await send(api, REGISTER)
    guesses = [await send(api, TOKEN, username, f"wrong horse {number:02d}") for number in range(LOGINS + 1)]
    assert [guess.status for guess in guesses] == [401] * LOGINS + [429]
    assert (guesses[-1].json["code"], guesses[-1].headers["retry-after"]) == ("too-many-requests", "60")
    # The right password is refused too, otherwise guessing could continue.
    assert (await send(api, TOKEN, username)).status == 429
    assert (await send(api, TOKEN, "somebody-else")).status == 401
    api.time.seconds += LOGIN_SECONDS
    assert (await send(api, TOKEN, username)).status == (403 if username == "ann" else 401)


async def test_concurrent_guesses_do_not_exceed_the_limit() -> None:
    api = made()
    await send(api, REGISTER)
    answers = await asyncio.gather(*(send(api, TOKEN, password=f"wrong horse {number:03d}") for number in range(40)))
    assert sorted(answer.status for answer in answers) == [401] * LOGINS + [429] * (40 - LOGINS)


async def test_a_right_password_resets_the_limit() -> None:
    api = made()
    await token_of(api)
    for _ in range(3):
        for _ in range(LOGINS - 1):
            assert (await send(api, TOKEN, password="wrong horse battery")).status == 401
        assert (await send(api, TOKEN)).status == 200


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


class Shared(LocalCounter):
    """A Redis that can be unavailable."""

    down = False

    async def consume(self, limits: Sequence[Limit], units: int) -> list[LimitState]:
        if self.down:
            raise Unavailable("Redis: down")
        return await super().consume(limits, units)

    async def reset(self, limit: Limit) -> None:
        if self.down:
            raise Unavailable("Redis: down")
        await super().reset(limit)


async def test_all_processes_share_the_count_of_guesses() -> None:
    time = Time()
    shared = Shared(time)
    here, there = (AttemptLimit("login", 5, 300, shared, time) for _ in range(2))
    waits = [await each.consume("ann") for each in (here, there, here, there, here, there)]
    assert waits == [0] * 5 + [60]
    # The right password at one of them counts at the others too.
    await here.reset("ann")
    assert await there.consume("ann") == 0


async def test_without_redis_each_process_counts_attempts() -> None:
    time = Time()
    shared = Shared(time)
    attempts = AttemptLimit("login", 5, 300, shared, time)
    assert [await attempts.consume("ann") for _ in range(6)] == [0] * 5 + [60]
    shared.down = True
    assert [await attempts.consume("ann") for _ in range(6)] == [0] * 5 + [60]
    await attempts.reset("ann")
    assert await attempts.consume("ann") == 0
    shared.down = False
    # Asked again after a while, it still knows its own.
    time.seconds += RETRY_SECONDS
    assert await attempts.consume("ann") == 60 - RETRY_SECONDS


async def test_registrations_are_bounded() -> None:
    api = made()
    answers = [await send(api, REGISTER, f"ann-{number}") for number in range(REGISTRATIONS + 1)]
    assert [answer.status for answer in answers] == [201] * REGISTRATIONS + [429]
    assert len(api.accounts.rows) == REGISTRATIONS


async def test_the_number_of_concurrent_and_waiting_hashes_is_limited() -> None:
    passwords = fast_passwords()
    running = most = 0

    def slow(stored: str, password: str) -> bool:
        nonlocal running, most
        running += 1
        most = max(most, running)
        time.sleep(0.01)
        running -= 1
        return True

    passwords._verify = slow  # type: ignore[method-assign]
    found = await asyncio.gather(*(passwords.verify("x", "y") for _ in range(40)), return_exceptions=True)
    refused = [each for each in found if isinstance(each, Unavailable)]
    assert most == MAX_CONCURRENT
    assert len(found) - len(refused) >= MAX_WAITING
    assert refused
    assert await passwords.verify("x", "y")


async def test_one_name_is_one_account() -> None:
    api = made()
    await send(api, REGISTER)
    again = await send(api, REGISTER, password="another password")
    assert (again.status, again.json["code"]) == (409, "conflict")


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
    await found.register("ann", PASSWORD)
    await store.bind("ann", BINDING)
    api = made()
    found._service_accounts._kube = api.kube
    claims = jwt.decode(await found.token("ann", PASSWORD), SIGNING_KEY, ["HS256"], audience=ISSUER)
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
