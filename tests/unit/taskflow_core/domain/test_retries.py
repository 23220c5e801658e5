from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskflow_core.domain.events import Failure
from taskflow_core.domain.phases import Reason
from taskflow_core.domain.retries import GiveUp, Retry, after_failure
from taskflow_core.domain.task import RetryPolicy

DAY = 86400
policies = st.builds(
    RetryPolicy,
    max_attempts=st.integers(1, 100),
    backoff_seconds=st.integers(0, DAY),
    backoff_factor=st.integers(1, 10),
    max_backoff_seconds=st.integers(0, DAY),
    jitter_percent=st.integers(0, 100),
)
FINAL = [reason for reason in Reason if reason.final]
PASSING = [reason for reason in Reason if not reason.final and reason is not Reason.DRAIN]


def failure(reason: Reason, error_type: str = "") -> Failure:
    return Failure(reason=reason, type=error_type)


def policy(attempts: int = 10, backoff: int = 5, factor: int = 2, longest: int = 600) -> RetryPolicy:
    return RetryPolicy(
        max_attempts=attempts, backoff_seconds=backoff, backoff_factor=factor, max_backoff_seconds=longest
    )


@pytest.mark.parametrize(
    ("given_policy", "counted", "delay"),
    [
        (policy(), 1, 5),
        (policy(), 2, 10),
        (policy(), 3, 20),
        (policy(), 7, 320),
        (policy(), 8, 600),
        (policy(), 9, 600),
        (policy(factor=1), 9, 5),
        (policy(factor=10, longest=DAY), 5, 50_000),
        (policy(backoff=0), 5, 0),
        (policy(longest=0), 1, 0),
        (policy(attempts=100, factor=10, longest=DAY), 99, DAY),
    ],
)
def test_the_wait_grows_by_the_factor_up_to_its_bound(given_policy: RetryPolicy, counted: int, delay: int) -> None:
    assert after_failure(given_policy, counted=counted, failure=failure(Reason.HANDLER_ERROR), draw=0.0) == Retry(
        delay, counts=True
    )


@pytest.mark.parametrize(("attempts", "counted"), [(1, 1), (3, 3), (3, 4)])
def test_spent_attempts_end_the_task(attempts: int, counted: int) -> None:
    assert after_failure(policy(attempts), counted=counted, failure=failure(Reason.WORKER_LOST), draw=0.0) == GiveUp()


@pytest.mark.parametrize("reason", FINAL)
@given(given_policy=policies, counted=st.integers(1, 100))
def test_a_final_reason_is_never_followed_by_another_attempt(
    reason: Reason, given_policy: RetryPolicy, counted: int
) -> None:
    assert after_failure(given_policy, counted=counted, failure=failure(reason), draw=0.0) == GiveUp()


@given(given_policy=policies, counted=st.integers(1, 200))
def test_a_drain_never_counts_and_never_waits(given_policy: RetryPolicy, counted: int) -> None:
    assert after_failure(given_policy, counted=counted, failure=failure(Reason.DRAIN), draw=0.0) == Retry(
        0, counts=False
    )


@given(given_policy=policies, reason=st.sampled_from(PASSING))
def test_waits_never_shrink_and_never_pass_their_bound(given_policy: RetryPolicy, reason: Reason) -> None:
    decisions = [
        after_failure(given_policy, counted=n, failure=failure(reason), draw=0.0)
        for n in range(1, given_policy.max_attempts)
    ]
    waits = [decision.delay_seconds for decision in decisions if isinstance(decision, Retry)]
    assert len(waits) == given_policy.max_attempts - 1
    assert waits == sorted(waits)
    assert all(0 <= wait <= given_policy.max_backoff_seconds for wait in waits)


@given(given_policy=policies, reason=st.sampled_from(PASSING))
def test_there_are_as_many_attempts_as_the_policy_allows(given_policy: RetryPolicy, reason: Reason) -> None:
    counted = 1
    while isinstance(after_failure(given_policy, counted=counted, failure=failure(reason), draw=0.0), Retry):
        counted += 1
    assert counted == given_policy.max_attempts


@given(given_policy=policies, counted=st.integers(1, 99), draw=st.floats(0, 1, exclude_max=True))
def test_the_jitter_lengthens_a_wait_by_at_most_its_share(given_policy: RetryPolicy, counted: int, draw: float) -> None:
    plain = after_failure(given_policy, counted=counted, failure=failure(Reason.HANDLER_ERROR), draw=0.0)
    found = after_failure(given_policy, counted=counted, failure=failure(Reason.HANDLER_ERROR), draw=draw)
    if isinstance(plain, Retry):
        assert isinstance(found, Retry)
        assert plain.delay_seconds <= found.delay_seconds
        assert found.delay_seconds <= plain.delay_seconds * (100 + given_policy.jitter_percent) / 100


@pytest.mark.parametrize(
    ("retry_on", "no_retry_on", "error_type", "retried"),
    [
        ((), (), "ValueError", True),
        (("ConnectionError",), (), "ValueError", False),
        (("ConnectionError",), (), "ConnectionError", True),
        (("Timeout",), (), "requests.exceptions.Timeout", True),
        (("requests.exceptions.Timeout",), (), "requests.exceptions.Timeout", True),
        (("exceptions.Timeout",), (), "requests.exceptions.Timeout", False),
        ((), ("ValueError",), "ValueError", False),
        (("ValueError",), ("ValueError",), "ValueError", False),
    ],
)
def test_errors_are_retried_by_their_type(
    retry_on: tuple[str, ...], no_retry_on: tuple[str, ...], error_type: str, retried: bool
) -> None:
    wanted = RetryPolicy(retry_on=retry_on, no_retry_on=no_retry_on)
    found = after_failure(wanted, counted=1, failure=failure(Reason.HANDLER_ERROR, error_type), draw=0.0)
    assert isinstance(found, Retry) is retried


def test_what_is_not_the_handlers_error_is_retried_whatever_its_type() -> None:
    wanted = RetryPolicy(retry_on=("ConnectionError",))
    assert isinstance(after_failure(wanted, counted=1, failure=failure(Reason.WORKER_LOST), draw=0.0), Retry)


def test_of_a_worker_that_tells_no_classes_the_type_alone_counts() -> None:
    said = failure(Reason.HANDLER_ERROR, "requests.exceptions.ReadTimeout")
    assert isinstance(after_failure(RetryPolicy(retry_on=("ReadTimeout",)), counted=1, failure=said, draw=0.0), Retry)
    assert isinstance(after_failure(RetryPolicy(retry_on=("Timeout",)), counted=1, failure=said, draw=0.0), GiveUp)
