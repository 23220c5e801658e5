from datetime import UTC, datetime, timedelta

import pytest

from taskflow_api.webhooks.notifier import outcome_of
from taskflow_api.webhooks.retry_schedule import MAX_RETRY_AFTER, SCHEDULE, delay, read_retry_after
from taskflow_api.webhooks.sender import Answer

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
SECONDS = [0, 5, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400]


def test_attempts_are_made_by_the_schedule_of_standard_webhooks_and_then_no_more() -> None:
    assert [delay(made, None, 0.5) for made in range(12)] == [
        *(timedelta(seconds=each) for each in SECONDS),
        None,
        None,
    ]


@pytest.mark.parametrize(("random", "factor"), [(0.0, 0.9), (0.5, 1.0), (1.0, 1.1)])
def test_jitter_spreads_a_pause_by_a_tenth(random: float, factor: float) -> None:
    for made in range(1, len(SCHEDULE)):
        assert delay(made, None, random) == SCHEDULE[made] * factor


def test_what_the_receiver_asks_for_lengthens_a_pause_within_bounds_and_never_shortens_it() -> None:
    assert delay(1, timedelta(seconds=60), 0.5) == timedelta(seconds=60)
    assert delay(1, timedelta(seconds=1), 0.5) == SCHEDULE[1]
    assert delay(1, timedelta(days=900), 0.5) == MAX_RETRY_AFTER
    assert delay(len(SCHEDULE), timedelta(seconds=1), 0.5) is None


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120),
        (" 7 ", 7),
        ("0", 0),
        ("9" * 40, 86400),
        ("999999", 86400),
        ("Wed, 25 Nov 2026 12:01:00 GMT", 60),
        ("Wed, 25 Nov 2026 12:01:00 -0000", 60),
        ("Wed, 25 Nov 2037 12:00:00 GMT", 86400),
        ("Wed, 25 Nov 2026 11:00:00 GMT", None),
        (None, None),
        ("", None),
        ("-1", None),
        ("1.5", None),
        ("soon", None),
        ("\u0663", None),
        ("9" * 65, None),
    ],
)
def test_retry_after_is_seconds_or_a_date_or_nothing(value: str | None, seconds: int | None) -> None:
    found = read_retry_after(value, NOW)
    assert found == (None if seconds is None else timedelta(seconds=seconds))


@pytest.mark.parametrize("status", [100, 199, 300, 301, 302, 304, 307, 308, 400, 401, 404, 429, 500, 503])
def test_only_2xx_is_success(status: int) -> None:
    outcome = outcome_of(1, Answer(status), NOW, 0.5)
    assert (outcome.delivered, outcome.retry_after, outcome.disable) == (False, SCHEDULE[1], "")
    assert outcome.state == "Pending"


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_2xx_is_success(status: int) -> None:
    outcome = outcome_of(1, Answer(status, body="ok\0", seconds=0.25), NOW, 0.5)
    assert (outcome.delivered, outcome.state) == (True, "Delivered")
    assert outcome.attempt == {
        "at": "2026-11-25T12:00:00.000+00:00",
        "status": status,
        "error": "",
        "milliseconds": 250,
        "answer": "ok\N{REPLACEMENT CHARACTER}",
    }


def test_410_disables_and_the_last_attempt_gives_up() -> None:
    gone = outcome_of(1, Answer(410), NOW, 0.5)
    assert (gone.state, gone.disable) == ("Failed", "Gone")
    last = outcome_of(10, Answer(error="the connection failed"), NOW, 0.5)
    assert (last.state, last.retry_after, last.disable) == ("Failed", None, "")
    assert outcome_of(9, Answer(500), NOW, 0.5).retry_after == SCHEDULE[9]
