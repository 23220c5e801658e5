from __future__ import annotations

import hmac
from unittest.mock import Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kombu.transport.redis import Channel
from pydantic import SecretStr

from taskflow_core.broker.app import make_app
from taskflow_core.domain import naming
from taskflow_core.domain.naming import queue_lists
from taskflow_core.settings import RedisSettings
from tests.builders import TOKEN_KEY, UID

QUEUE_NAMES = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,20}[a-z0-9])?", fullmatch=True)


def kombus_list(queue: str, priority: int) -> str:
    """What kombu's Redis transport would use with the options of our application."""
    options = make_app(RedisSettings(url=SecretStr("redis://127.0.0.1:1/0"))).conf.broker_transport_options
    channel = Mock(spec=Channel)
    channel.sep, channel.priority_steps = options["sep"], options["priority_steps"]
    channel.priority = lambda number: Channel.priority(channel, number)
    found: str = Channel._q_for_pri(channel, queue, priority)
    return found


@pytest.mark.parametrize("priority", range(10))
def test_the_list_of_a_priority_is_the_one_that_kombu_uses(priority: int) -> None:
    expected = kombus_list("team-a.default", naming.broker_priority(priority))
    assert naming.broker_list("team-a", "default", priority) == expected


@pytest.mark.parametrize(
    ("priority", "served"), [(9, 0), (8, 0), (7, 0), (6, 3), (5, 3), (4, 3), (3, 6), (2, 6), (1, 6), (0, 9)]
)
def test_higher_priorities_are_served_first(priority: int, served: int) -> None:
    name = naming.broker_list("n", "q", priority)
    assert (int(name.partition(naming.PRIORITY_SEPARATOR)[2] or 0)) == served


def test_the_lists_of_a_queue_cover_every_priority_once_and_best_first() -> None:
    lists = queue_lists("team-a", ["default"])
    assert len(lists) == len(set(lists)) == len(naming.PRIORITY_STEPS)
    assert {naming.broker_list("team-a", "default", priority) for priority in range(10)} == set(lists)
    assert lists[0] == "team-a.default"


@given(first=st.tuples(QUEUE_NAMES, QUEUE_NAMES), second=st.tuples(QUEUE_NAMES, QUEUE_NAMES))
def test_queues_of_two_namespaces_never_mix(first: tuple[str, str], second: tuple[str, str]) -> None:
    assert (naming.broker_queue(*first) == naming.broker_queue(*second)) == (first == second)


def test_a_member_names_one_attempt_and_reads_back() -> None:
    assert naming.split_member(naming.member(UID, 12)) == (UID, 12, None)
    assert naming.keys_of("team-a").claim(UID, 12) == f"tf:{{team-a}}:cl:{UID}:12"


def test_a_chunk_is_an_attempt_with_a_suffix() -> None:
    assert naming.member(UID, 2, 1000) == f"{UID}:2:1000"
    assert naming.split_member(naming.member(UID, 2, 1000)) == (UID, 2, 1000)
    assert naming.keys_of("team-a").claim(UID, 2, 0) == f"tf:{{team-a}}:cl:{UID}:2:0"
    tokens = {naming.attempt_token(TOKEN_KEY, "team-a", UID, *place) for place in ((2,), (2, 0), (20, 0), (2, 1))}
    assert len(tokens) == 4


@pytest.mark.parametrize("text", ["", "nothing", ":1", "uid:", "uid:x", "uid:1.5", "uid:1:", "uid:1:x", "uid:1:2:3"])
def test_what_is_no_member_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected uid:attempt|invalid literal"):
        naming.split_member(text)


def test_a_token_is_the_first_half_of_an_hmac() -> None:
    full = hmac.new(TOKEN_KEY.encode(), f"team-a/{UID}:3".encode(), "sha256").hexdigest()
    assert naming.attempt_token(TOKEN_KEY, "team-a", UID, 3) == full[:32]


def test_tokens_differ_by_key_namespace_task_and_attempt_and_are_the_same_after_a_restart() -> None:
    tokens = {
        naming.attempt_token(key, namespace, uid, attempt)
        for key in (TOKEN_KEY, TOKEN_KEY[::-1])
        for namespace in ("n", "m")
        for uid in ("a", "b")
        for attempt in (1, 2)
    }
    assert len(tokens) == 16
    assert naming.attempt_token(TOKEN_KEY, "n", "a", 1) in tokens


def texts(namespace: str) -> set[str]:
    """All keys of a namespace, with those of an attempt and of an array."""
    keys = naming.keys_of(namespace)
    plain = {value for value in vars(keys).values() if isinstance(value, str)}
    parts = {keys.unacked.messages, keys.unacked.index, keys.unacked.mutex}
    return plain | parts | {keys.claim(UID, 1), keys.claim(UID, 1, 0), keys.array(UID), keys.once(UID, 1)}


def test_all_keys_of_a_namespace_lie_in_one_slot_and_under_one_prefix() -> None:
    keys = texts("team-a")
    assert len(keys) == len(vars(naming.keys_of("team-a"))) - 1 + 3 + 4
    # A cluster hashes what is within the first braces.
    assert all(key.startswith("tf:{team-a}:") for key in keys)


@given(first=QUEUE_NAMES, second=QUEUE_NAMES)
def test_keys_of_two_namespaces_never_mix(first: str, second: str) -> None:
    assert texts(first).isdisjoint(texts(second)) == (first != second)
    assert not any(key.startswith(f"tf:{{{first}}}:") for key in texts(second) if first != second)


def test_no_key_of_a_namespace_is_one_of_those_that_all_share() -> None:
    shared = {naming.KEY_EPOCH, naming.KEY_OPERATOR, naming.KEY_NAMESPACES}
    for namespace in ("epoch", "operator", "namespaces"):
        assert shared.isdisjoint(texts(namespace))


def test_attempts_never_share_a_prefix_in_the_object_store() -> None:
    one, two = naming.attempt_prefix("n", UID, 1), naming.attempt_prefix("n", UID, 11)
    assert not two.startswith(one)
    assert one.startswith(naming.object_prefix("n"))
