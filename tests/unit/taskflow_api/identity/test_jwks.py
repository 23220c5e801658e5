import asyncio
from typing import Any

import pytest

from taskflow_api.identity.jwks import FRESH_SECONDS, RETRY_SECONDS, KeySet
from taskflow_core.errors import Unavailable
from tests.unit.taskflow_api.identity.issuer import ISSUER, Web, ec_jwk, rsa_jwk
from tests.unit.taskflow_api.identity.memory import Time


def made(*keys: dict[str, Any]) -> tuple[KeySet, Web, Time]:
    web, clock = Web(*keys), Time()
    return KeySet(ISSUER, web, clock), web, clock


async def test_the_issuer_is_asked_once_for_many_tokens_at_once() -> None:
    keys, web, _ = made(rsa_jwk("one"), ec_jwk("curve"))
    found = await asyncio.gather(*(keys.key("one", "RS256") for _ in range(20)))
    assert all(found)
    assert len(web.asked) == 2


async def test_a_new_key_is_fetched_and_unknown_keys_do_not_cause_more_fetches() -> None:
    keys, web, clock = made(rsa_jwk("one"))
    assert await keys.key("one", "RS256")
    web.keys.append(ec_jwk("new"))
    for number in range(50):
        assert await keys.key(f"made-up-{number}", "RS256") is None
    assert await keys.key("new", "ES256") is None
    assert len(web.asked) == 2
    clock.seconds += RETRY_SECONDS
    assert await keys.key("new", "ES256")
    assert len(web.asked) == 4


async def test_while_the_issuer_is_unavailable_cached_keys_work_and_others_are_unavailable() -> None:
    keys, web, clock = made(rsa_jwk("one"))
    assert await keys.key("one", "RS256")
    web.away = True
    for _ in range(3):
        clock.seconds += FRESH_SECONDS
        assert await keys.key("one", "RS256")
        await asyncio.sleep(0)
    clock.seconds += RETRY_SECONDS
    for _ in range(2):
        with pytest.raises(Unavailable):
            await keys.key("new", "RS256")
    web.away = False
    web.keys.append(rsa_jwk("new"))
    clock.seconds += RETRY_SECONDS
    assert await keys.key("new", "RS256")


async def test_a_withdrawn_key_stops_working_after_five_minutes_without_delaying_requests() -> None:
    keys, web, clock = made(rsa_jwk("one"), rsa_jwk("two"))
    assert await keys.key("one", "RS256")
    web.keys = [rsa_jwk("two")]
    clock.seconds += FRESH_SECONDS
    assert await keys.key("one", "RS256")
    for _ in range(3):
        await asyncio.sleep(0)
    assert len(web.asked) == 4
    assert await keys.key("one", "RS256") is None


async def test_a_token_that_names_no_key_gets_the_only_one() -> None:
    keys, web, clock = made(rsa_jwk("one"))
    assert await keys.key(None, "RS256")
    web.keys.append(rsa_jwk("two"))
    clock.seconds += FRESH_SECONDS
    await keys.key(None, "RS256")
    for _ in range(3):
        await asyncio.sleep(0)
    assert await keys.key(None, "RS256") is None


@pytest.mark.parametrize(
    "discovery",
    [
        {"issuer": ISSUER + "/", "jwks_uri": "https://login.example.com/keys"},
        {"issuer": "https://evil.example", "jwks_uri": "https://login.example.com/keys"},
        {"jwks_uri": "https://login.example.com/keys"},
        {"issuer": ISSUER},
        {"issuer": ISSUER, "jwks_uri": "http://login.example.com/keys"},
        {"issuer": ISSUER, "jwks_uri": "file:///etc/keys"},
        {"issuer": ISSUER, "jwks_uri": ["https://login.example.com/keys"]},
        {"issuer": ISSUER, "jwks_uri": "https://[not an address/"},
    ],
)
async def test_a_discovery_document_of_another_issuer_or_with_an_http_url_is_refused(discovery: dict[str, Any]) -> None:
    keys, web, _ = made(rsa_jwk("one"))
    web.discovery = discovery
    with pytest.raises(Unavailable):
        await keys.key("one", "RS256")
    assert len(web.asked) == 1


@pytest.mark.parametrize(
    "published",
    [
        [],
        None,
        {"one": 1},
        ["x", 7],
        [{"kid": "one"}],
        [{"kty": "oct", "kid": "one", "k": "AAAA"}],
        [rsa_jwk("one", use="enc")],
    ],
)
async def test_a_set_without_a_public_signing_key_is_unavailable(published: Any) -> None:
    keys, web, _ = made()
    web.keys = published
    with pytest.raises(Unavailable):
        await keys.key("one", "RS256")


async def test_a_broken_key_does_not_affect_the_others() -> None:
    keys, _, _ = made({"kty": "RSA", "kid": "broken", "n": "!", "e": 1}, rsa_jwk("one"))
    assert await keys.key("one", "RS256")
    assert await keys.key("broken", "RS256") is None


async def test_closing_ends_a_refresh_that_hangs() -> None:
    keys, web, clock = made(rsa_jwk("one"))
    assert await keys.key("one", "RS256")

    async def hang(_: str) -> dict[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError

    keys._fetch = hang
    clock.seconds += FRESH_SECONDS
    assert await keys.key("one", "RS256")
    await asyncio.sleep(0)
    await keys.close()
    assert len(web.asked) == 2
