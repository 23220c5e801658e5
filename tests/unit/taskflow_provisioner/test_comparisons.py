from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from taskflow_core.broker import acl
from taskflow_provisioner.cluster import is_wanted, pools_to_announce
from taskflow_provisioner.fixed_users import redis_users
from taskflow_provisioner.redis_users import Applied, Changes, compare
from taskflow_provisioner.s3_logins import namespace_of, s3_users
from taskflow_provisioner.settings import ProvisionerSettings

NOW = datetime(2026, 1, 1, tzinfo=UTC)
OLD, NEW = "#" + "0" * 64, "#" + "1" * 64
RIGHT = {"a": Applied(("on", NEW), f"user a on {NEW}")}


def changes(wanted: dict[str, list[str]], found: dict[str, str], applied: dict[str, Applied] | None = None) -> Changes:
    return compare(wanted, RIGHT if applied is None else applied, found, lambda user: user.startswith("ours"))


def test_a_user_that_is_as_it_was_set_is_left_alone() -> None:
    assert changes({"a": ["on", NEW]}, {"a": f"user a on {NEW}", "theirs": ""}) == Changes()


@pytest.mark.parametrize(
    ("wanted", "found", "applied"),
    [
        ({"a": ["on", NEW]}, {}, None),
        ({"a": ["on", NEW, "+get"]}, {"a": f"user a on {NEW}"}, None),
        ({"a": ["on", NEW]}, {"a": f"user a on {NEW} +@all"}, None),
        ({"a": ["on", NEW]}, {"a": f"user a on {NEW}"}, {}),
    ],
)
def test_a_user_is_set_when_it_is_gone_differs_or_is_not_known_yet(
    wanted: dict[str, list[str]], found: dict[str, str], applied: dict[str, Applied] | None
) -> None:
    assert changes(wanted, found, applied) == Changes(put=("a",))


def test_who_logged_in_with_a_password_that_is_over_is_disconnected() -> None:
    assert changes({"a": [NEW]}, {"a": f"user a {OLD} {NEW}"}) == Changes(put=("a",), disconnect=("a",))
    assert changes({"a": [OLD, NEW]}, {"a": f"user a {OLD}"}) == Changes(put=("a",))


def test_only_users_of_ours_are_removed() -> None:
    assert changes({}, {"default": "", "ours-x": "", "theirs": ""}) == Changes(remove=("ours-x",))


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({"labels": {"taskflow.dev/workers": "enabled"}}, True),
        ({"labels": {"taskflow.dev/workers": "disabled"}}, False),
        ({}, False),
        ({"name": "listed"}, True),
        ({"name": "other", "labels": {"taskflow.dev/workers": "enabled"}}, False),
        ({"name": "listed", "deletionTimestamp": "2026-01-01T00:00:00Z"}, False),
    ],
)
def test_which_namespaces_get_logins(metadata: dict[str, Any], expected: bool) -> None:
    assert is_wanted({"metadata": {"name": "team-a"} | metadata}, {"listed"}, {"other"}) is expected


def test_pools_that_may_have_pods_with_an_older_login_are_told_once() -> None:
    def pool(name: str, age: timedelta, **notes: str) -> dict[str, Any]:
        created = (NOW - age).isoformat()
        return {"metadata": {"name": name, "creationTimestamp": created, "annotations": notes or None}}

    pools = [
        pool("old", timedelta(days=1)),
        pool("told", timedelta(days=1), **{"workers.taskflow.dev/login": "now"}),
        pool("told-before", timedelta(days=1), **{"workers.taskflow.dev/login": "then"}),
        pool("new", timedelta(minutes=-5)),
    ]
    assert pools_to_announce(pools, NOW, "now") == ["old", "told-before"]


def test_users_of_components_are_kept_and_no_others() -> None:
    urls = [
        f"redis://{acl.OPERATOR}:one@h",
        f"redis://{acl.API}:t%2Fwo@h",
        "redis://default:three@h",
        "redis://:four@h",
        f"redis://{acl.API}@h",
    ]
    assert redis_users(urls) == {
        acl.OPERATOR: tuple(acl.operator_rules("one")),
        acl.API: tuple(acl.api_rules("t/wo")),
    }


def test_names_of_s3_users_tell_namespace_and_bucket() -> None:
    names = [user for namespace in ("a", "a-b", "b") for bucket in ("x", "x.y") for user in s3_users(namespace, bucket)]
    assert len(set(names)) == len(names)
    assert [namespace_of(user, "x") for user in s3_users("a-b", "x")] == ["a-b", "a-b"]
    others = (
        "a@x",
        "taskflow-worker-a",
        "taskflow-worker-a.c@x",
        "taskflow-worker-a.b.b@x",
        "taskflow-worker-@x",
        "@x",
    )
    assert [namespace_of(user, "x") for user in (*s3_users("a", "y"), *others)] == [None] * 8


def test_a_grace_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValidationError, match="at most half of sts_seconds"):
        ProvisionerSettings(s3_logins="sts", sts_seconds=3600, grace_seconds=3600)
    with pytest.raises(ValidationError, match="more than grace_seconds"):
        ProvisionerSettings(rotate_after_days=1, grace_seconds=86400)
    assert ProvisionerSettings().rotate_after is None
    assert ProvisionerSettings(rotate_after_days=30).rotate_after == timedelta(days=30)
