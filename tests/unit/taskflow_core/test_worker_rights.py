from __future__ import annotations

import io

import pytest

from taskflow_core.blobs.policy import worker_policy
from taskflow_core.broker import acl
from taskflow_core.errors import Invalid


@pytest.mark.parametrize("namespace", ["", "*", "team-*", "team a", "Team", "-a", "a.b"])
def test_what_is_no_namespace_gets_no_rules(namespace: str) -> None:
    with pytest.raises(Invalid, match="expected the name of a namespace"):
        acl.worker_rules(namespace, "p")


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
