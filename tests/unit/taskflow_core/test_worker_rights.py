from __future__ import annotations

import io
import json

import pytest

from taskflow_core.blobs.policy import api_policy, main, worker_policy
from taskflow_core.broker import acl
from taskflow_core.errors import Invalid


@pytest.mark.parametrize("namespace", ["", "*", "team-*", "team a", "Team", "-a", "a.b"])
def test_what_is_no_namespace_gets_no_rules(namespace: str) -> None:
    with pytest.raises(Invalid, match="expected the name of a namespace"):
        acl.worker_rules(namespace, "p")
    with pytest.raises(Invalid, match="expected the name of a namespace"):
        worker_policy(namespace, "b")


def test_the_printed_command_has_no_password(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("very-secret\n"))
    assert acl.main(["team-a"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("ACL SETUSER taskflow-worker-team-a reset on #")
    assert "very-secret" not in printed


def test_a_policy_names_nothing_outside_the_prefix() -> None:
    objects, listing = worker_policy("team-a", "b")["Statement"]
    assert objects["Resource"] == ["arn:aws:s3:::b/team-a/*"]
    assert listing["Condition"] == {"StringLike": {"s3:prefix": ["team-a/*"]}}


def test_the_api_copies_nothing_and_has_no_right_that_it_does_not_use(capsys: pytest.CaptureFixture[str]) -> None:
    objects, listing, copying = api_policy("b")["Statement"]
    assert copying == {
        "Effect": "Deny",
        "Action": ["s3:PutObject"],
        "Resource": ["arn:aws:s3:::b/*"],
        "Condition": {"Null": {"s3:x-amz-copy-source": ["false"]}},
    }
    allowed = [*objects["Action"], *listing["Action"]]
    assert not any("*" in action or "Acl" in action or "Tagging" in action for action in allowed)
    assert main(["--api", "b"]) == 0
    assert json.loads(capsys.readouterr().out) == api_policy("b")
    assert main(["*", "b"]) == 2
    assert main(["--api"]) == 2
