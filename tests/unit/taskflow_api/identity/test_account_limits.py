import asyncio
import time
from collections.abc import Sequence

import pytest

from taskflow_api.gcra.counters import RETRY_SECONDS, LocalCounter
from taskflow_api.gcra.limit import Limit, LimitState
from taskflow_api.identity.accounts import (
    ACCOUNT_LOGINS,
    ALL_REGISTRATIONS,
    LOGIN_SECONDS,
    LOGINS,
    REGISTRATIONS,
    SLOW_SECONDS,
    SOURCE_LOGINS,
)
from taskflow_api.identity.attempt_limits import AttemptLimit
from taskflow_api.identity.passwords import MAX_CONCURRENT, MAX_WAITING
from taskflow_core.errors import Unavailable
from tests.unit.taskflow_api.identity.accounts_site import (
    REGISTER,
    TOKEN,
    made,
    send,
    token_of,
)
from tests.unit.taskflow_api.identity.memory import Time, fast_passwords


@pytest.mark.parametrize("username", ["ann", "nobody"])
async def test_five_wrong_passwords_block_further_attempts_from_there_for_a_while(username: str) -> None:
    api = made()
    await token_of(api)
    guesses = [await send(api, TOKEN, username, f"wrong horse {number:02d}") for number in range(LOGINS + 1)]
    assert [guess.status for guess in guesses] == [401] * LOGINS + [429]
    assert (guesses[-1].json["code"], guesses[-1].headers["retry-after"]) == ("too-many-requests", "60")
    # The right password is refused there too, otherwise guessing could continue.
    assert (await send(api, TOKEN, username)).status == 429
    assert (await send(api, TOKEN, "somebody-else")).status == 401
    api.time.seconds += LOGIN_SECONDS
    assert (await send(api, TOKEN, username)).status == (200 if username == "ann" else 401)


async def test_a_stranger_who_goes_on_guessing_does_not_keep_the_owner_out() -> None:
    api = made()
    await token_of(api)
    for number in range(40):
        # From many addresses; of an IPv6 network all are one.
        for stranger in (f"198.51.100.{number}", f"2001:db8::{number:x}", "198.51.100.1"):
            await send(api, TOKEN, password=f"wrong horse {number:02d}", client=stranger)
        assert (await send(api, TOKEN)).status == 200
        api.time.seconds += 1
    assert (await send(api, TOKEN, client="2001:db8::ffff")).status == 429
    assert (await send(api, TOKEN, client="2001:db8:0:1::1")).status == 200


async def test_wrong_passwords_from_many_addresses_are_answered_slowly_and_right_ones_at_once() -> None:
    api = made()
    await token_of(api)
    for number in range(ACCOUNT_LOGINS + 5):
        assert (await send(api, TOKEN, password="wrong horse battery", client=f"198.51.100.{number}")).status == 401
    assert 5 <= len(api.time.slept) <= 7
    assert set(api.time.slept) == {SLOW_SECONDS}
    slept = len(api.time.slept)
    assert (await send(api, TOKEN, client="192.0.2.1")).status == 200
    assert len(api.time.slept) == slept


async def test_one_address_tries_few_names() -> None:
    api = made()
    answers = [await send(api, TOKEN, f"ann-{number}") for number in range(SOURCE_LOGINS + 1)]
    assert [answer.status for answer in answers] == [401] * SOURCE_LOGINS + [429]
    assert (await send(api, TOKEN, "ann-1", client="192.0.2.1")).status == 401


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


async def test_one_stranger_does_not_use_up_the_registrations_of_all() -> None:
    api = made()
    answers = [await send(api, REGISTER, f"ann-{number}") for number in range(REGISTRATIONS + 1)]
    assert [answer.status for answer in answers] == [201] * REGISTRATIONS + [429]
    assert len(api.accounts.rows) == REGISTRATIONS
    accounts = api.identity.accounts
    assert accounts is not None
    accounts._all_registrations._quota = 10
    assert (await send(api, REGISTER, "bob", client="192.0.2.1")).status == 201
    # What was refused there counts nothing against the others.
    for number in range(20):
        await send(api, REGISTER, f"ann-{number}")
    assert (await send(api, REGISTER, "eve", client="192.0.2.2")).status == 201


async def test_all_registrations_together_are_bounded() -> None:
    api = made()
    accounts = api.identity.accounts
    assert accounts is not None
    assert accounts._all_registrations._quota == ALL_REGISTRATIONS
    accounts._all_registrations._quota = 10
    answers = [await send(api, REGISTER, f"n{number}", client=f"198.51.100.{number}") for number in range(11)]
    assert [answer.status for answer in answers] == [201] * 10 + [429]


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
