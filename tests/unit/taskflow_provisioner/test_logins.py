from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from taskflow_core.broker import acl
from taskflow_provisioner.logins import Action, Former, Login, Rotation, S3Key, decide

NOW = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
KEY = S3Key("id", "key", "own")
LOGIN = Login("password", KEY, NOW)
ROTATION = Rotation(HOUR)
MONTHLY = Rotation(HOUR, timedelta(days=30))


def with_former(until: datetime) -> Login:
    return replace(LOGIN, former=Former("0" * 64, "old", until))


@pytest.mark.parametrize(
    ("login", "request_", "at", "rotation", "expected"),
    [
        (None, "", NOW, ROTATION, Action.MAKE),
        (LOGIN, "", NOW + timedelta(days=3650), ROTATION, Action.KEEP),
        (LOGIN, "", NOW + timedelta(days=26), MONTHLY, Action.KEEP),
        (LOGIN, "", NOW + timedelta(days=30), MONTHLY, Action.ROTATE),
        (LOGIN, "please", NOW, ROTATION, Action.ROTATE),
        (replace(LOGIN, served_request="please"), "please", NOW, ROTATION, Action.KEEP),
        (replace(LOGIN, served_request="please"), "again", NOW, ROTATION, Action.ROTATE),
        (replace(LOGIN, served_request="please"), "", NOW, ROTATION, Action.KEEP),
        (with_former(NOW + HOUR), "again", NOW, ROTATION, Action.KEEP),
        (with_former(NOW + HOUR), "again", NOW + HOUR, ROTATION, Action.RETIRE),
    ],
)
def test_what_happens_to_a_login(
    login: Login | None, request_: str, at: datetime, rotation: Rotation, expected: Action
) -> None:
    assert decide(login, request_, at, rotation) is expected


def test_a_temporary_key_is_renewed_after_half_of_its_life_and_one_of_another_kind_is_replaced() -> None:
    temporary = replace(LOGIN, s3=replace(KEY, expires=NOW + 12 * HOUR))
    assert decide(temporary, "", NOW + 5 * HOUR, ROTATION) is Action.KEEP
    assert decide(temporary, "", NOW + 6 * HOUR, ROTATION) is Action.ROTATE
    assert decide(LOGIN, "", NOW, ROTATION, s3_fits=False) is Action.ROTATE


def test_logins_of_one_age_are_not_replaced_at_once() -> None:
    ages = [MONTHLY.age_for(replace(LOGIN, redis_password=str(number))) for number in range(200)]
    days = sorted(age / timedelta(days=1) for age in ages if age is not None)
    assert 27 <= days[0] < 27.1
    assert 29.9 < days[-1] <= 30
    assert max(after - before for before, after in itertools.pairwise(days)) < 0.2


def test_the_former_password_and_key_are_valid_for_the_time_of_grace() -> None:
    new = LOGIN.followed_by("next", replace(KEY, access_key="id2"), "please", NOW, HOUR)
    (digest,) = [rule for rule in acl.worker_rules("team-a", "password") if rule.startswith("#")]
    meanwhile, after = (new.redis_rules("team-a", NOW + late) for late in (timedelta(), HOUR))
    assert set(meanwhile) - set(after) == {digest}
    assert list(after) == acl.worker_rules("team-a", "next")
    assert new.s3_access_keys(NOW) == {"id", "id2"}
    assert new.s3_access_keys(NOW + HOUR) == {"id2"}
    assert (new.since, new.replaces, new.served_request) == (NOW, True, "please")


def test_no_secret_of_a_login_is_in_its_text() -> None:
    login = Login("pass-word", S3Key("id", "se-cret", "temporary", "to-ken"), NOW)
    assert not [word for word in ("pass-word", "se-cret", "to-ken") if word in repr(login)]
