import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from taskflow_core.kube.client import KubeClient, resource_path
from tests.integration.api.conftest import NAMESPACE, Answer, Installation

pytestmark = pytest.mark.integration
TASKS = f"/v1/namespaces/{NAMESPACE}/tasks"
KEYS = f"/v1/namespaces/{NAMESPACE}/apikeys"
PASSWORD = "correct horse battery"
REMEMBERED_SECONDS = 15
"""What is believed for 10 s, and some for a busy machine."""


def _key(installation: Installation, account: str, *arguments: str) -> str:
    """A key for a ServiceAccount, which is from then on an account of the installation."""
    made = installation.command("keys", "create", "--namespace", NAMESPACE, "--service-account", account, *arguments)
    assert made.returncode == 0, made.stderr
    key = made.stdout.strip()
    installation.tokens[key.split("_")[1]] = key
    return key.split("_")[1]


def _eventually(ask: Callable[[], Answer], status: int) -> None:
    deadline = time.monotonic() + REMEMBERED_SECONDS
    while (found := ask()).status != status:
        assert time.monotonic() < deadline, (found.status, found.body)
        time.sleep(0.2)


@pytest.fixture(scope="module")
def keymaker(installation: Installation) -> str:
    """May be the ServiceAccount `allowed`, and no other."""
    installation.add_account("keymaker", [])
    subject = {"kind": "ServiceAccount", "name": "keymaker", "namespace": NAMESPACE}
    rule = {
        "apiGroups": [""],
        "resources": ["serviceaccounts/token"],
        "resourceNames": ["allowed"],
        "verbs": ["create"],
    }
    installation.grant("keymaker", subject, rule)
    return "keymaker"


def test_the_first_key_comes_from_the_command_line_and_works_within_scopes_and_rbac(installation: Installation) -> None:
    both, reading = _key(installation, "allowed"), _key(installation, "allowed", "--scope", "read", "--name", "board")
    for account in (both, reading):
        assert installation.call("GET", TASKS, account=account).status == 200
    task = {"generateName": "keyed-", "spec": {"handler": "a.b"}}
    assert installation.call("POST", TASKS, task, account=both).status == 201
    refused = installation.call("POST", TASKS, task, account=reading)
    assert (refused.status, "scopes read; this request needs write" in refused.json["detail"]) == (403, True)
    weak = _key(installation, "stranger")
    assert f"{NAMESPACE}:stranger may not list" in installation.call("GET", TASKS, account=weak).json["detail"]

    listed = installation.command("keys", "list", "--namespace", NAMESPACE).stdout
    assert [line.split()[:3] for line in listed.splitlines() if both in line] == [[both, "allowed", "read,write"]]
    assert "board" in listed
    assert not any(installation.tokens[account] in listed for account in (both, reading, weak))

    revoked = installation.command("keys", "revoke", both)
    assert revoked.returncode == 0
    # Another process did it.
    _eventually(lambda: installation.call("GET", TASKS, account=both), 401)
    assert installation.call("GET", TASKS, account=reading).status == 200


@pytest.mark.parametrize(
    ("arguments", "environ", "code", "said"),
    [
        (
            ("keys", "create", "--namespace", NAMESPACE, "--service-account", "nobody"),
            {},
            3,
            "ServiceAccount nobody does not exist",
        ),
        (("keys", "revoke", "0" * 16), {}, 3, "API key 0000"),
        (("accounts", "bind", "nobody", "0123", f"{NAMESPACE}/allowed"), {}, 3, "no account nobody with the id 0123"),
        (("accounts", "bind", "nobody", "0123", f"{NAMESPACE}/nobody"), {}, 3, "ServiceAccount nobody does not exist"),
        (
            ("keys", "list", "--namespace", NAMESPACE),
            {"TASKFLOW_DATABASE_URL": "postgresql+psycopg://u:hunter2@127.0.0.1:1/db"},
            1,
            "history database",
        ),
        (("keys", "list", "--namespace", NAMESPACE), {"TASKFLOW_DATABASE_URL": "nonsense"}, 2, "TASKFLOW_DATABASE_URL"),
    ],
)
def test_a_failed_command_gives_one_line_and_an_exit_code(
    installation: Installation, arguments: tuple[str, ...], environ: dict[str, str], code: int, said: str
) -> None:
    done = installation.command(*arguments, **environ)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (code, "", 1), done.stderr
    assert said in done.stderr
    assert "hunter2" not in done.stderr


def test_keys_can_be_created_only_for_permitted_service_accounts(installation: Installation, keymaker: str) -> None:
    body = {"serviceAccount": "allowed", "scopes": ["read"], "name": "ci"}
    made = installation.call("POST", KEYS, body, account=keymaker)
    assert made.status == 201, made.body
    key_id = made.json["id"]
    installation.tokens[key_id] = made.json["key"]
    assert installation.call("GET", TASKS, account=key_id).status == 200
    assert installation.call("GET", made.headers["Location"], account=keymaker).json["name"] == "ci"
    mine = installation.call("GET", KEYS + "?serviceAccount=allowed", account=keymaker)
    assert key_id in [item["id"] for item in mine.json["items"]]
    # Its right is for one ServiceAccount.
    assert installation.call("POST", KEYS, body | {"serviceAccount": "reader"}, account=keymaker).status == 403
    assert installation.call("GET", KEYS, account=keymaker).status == 403
    assert installation.call("GET", KEYS + "?serviceAccount=reader", account=keymaker).status == 403
    # All rights on Tasks are none on keys, and a key has none on keys either.
    for account in ("allowed", key_id):
        assert installation.call("POST", KEYS, body, account=account).status == 403
    assert installation.call("DELETE", made.headers["Location"], account=keymaker).status == 204
    assert installation.call("GET", TASKS, account=key_id).status == 401


def test_only_one_of_many_concurrent_rotations_succeeds(installation: Installation, keymaker: str) -> None:
    old = installation.call("POST", KEYS, {"serviceAccount": "allowed", "scopes": ["read"]}, account=keymaker).json
    with ThreadPoolExecutor(8) as pool:
        rotate = f"{KEYS}/{old['id']}:rotate"
        answers = list(
            pool.map(lambda _: installation.call("POST", rotate, {"graceSeconds": 2}, account=keymaker), range(8))
        )
    assert sorted(answer.status for answer in answers) == [201] + [409] * 7
    new = next(answer.json for answer in answers if answer.status == 201)
    installation.tokens |= {old["id"]: old["key"], new["id"]: new["key"]}
    assert installation.call("GET", TASKS, account=new["id"]).status == 200
    assert installation.call("GET", f"{KEYS}/{old['id']}", account=keymaker).json["replacedBy"] == new["id"]
    _eventually(lambda: installation.call("GET", TASKS, account=old["id"]), 401)
    assert installation.call("GET", TASKS, account=new["id"]).status == 200


def test_a_key_ends_with_its_service_account_and_is_not_that_of_its_successor(installation: Installation) -> None:
    installation.add_account("passing", ["list"])
    key = _key(installation, "passing")
    assert installation.call("GET", TASKS, account=key).status == 200

    async def again(client: KubeClient) -> None:
        accounts = resource_path("api/v1", "serviceaccounts", NAMESPACE)
        await client.request("DELETE", f"{accounts}/passing")
        await client.request("POST", accounts, {"metadata": {"name": "passing"}})

    installation.kube(again)
    _eventually(lambda: installation.call("GET", TASKS, account=key), 401)


def test_when_a_key_was_used_last_is_known_after_the_process_ended(installation: Installation, keymaker: str) -> None:
    key = _key(installation, "allowed")
    assert installation.call("GET", TASKS, account=key).status == 200
    shown = installation.call("GET", f"{KEYS}/{key}", account=keymaker)
    assert shown.json["lastUsedAt"] is None
    installation.stack.stop("api")
    installation.stack.start("api")
    assert installation.call("GET", f"{KEYS}/{key}", account=keymaker).json["lastUsedAt"] is not None


def test_a_user_of_the_issuer_and_its_groups_have_what_rbac_gives_them(installation: Installation) -> None:
    issuer = installation.issuer
    tasks: dict[str, Any] = {"apiGroups": ["taskflow.dev"], "resources": ["tasks"]}
    installation.grant("ann", {"kind": "User", "name": "oidc:ann"}, tasks | {"verbs": ["create"]})
    installation.grant("board", {"kind": "Group", "name": "oidc:board"}, tasks | {"verbs": ["list"]})
    installation.tokens |= {
        "ann": issuer.token("ann"),
        "ann of the board": issuer.token("ann", groups=["board"]),
        "for another": issuer.token("ann", aud="another"),
        "too powerful": issuer.token("bob", groups=["system:masters"]),
    }
    task = {"generateName": "oidc-", "spec": {"handler": "a.b"}}
    assert installation.call("POST", TASKS, task, account="ann").status == 201
    refused = installation.call("GET", TASKS, account="ann")
    assert (refused.status, "oidc:ann may not list" in refused.json["detail"]) == (403, True)
    assert installation.call("GET", TASKS, account="ann of the board").status == 200
    assert installation.call("GET", TASKS, account="for another").status == 401
    assert installation.call("GET", TASKS, account="too powerful").status == 403


def test_the_issuer_can_rotate_its_keys_and_be_unavailable(installation: Installation) -> None:
    issuer = installation.issuer
    installation.tokens["before"] = issuer.token("ann", groups=["board"])
    assert (
        installation.call(
            "POST", TASKS + "?dryRun=true", {"name": "x", "spec": {"handler": "a.b"}}, account="before"
        ).status
        == 201
    )
    issuer.rotate()
    installation.tokens["after"] = issuer.token("ann", groups=["board"])
    _eventually(lambda: installation.call("GET", TASKS, account="after"), 200)
    asked = issuer.asked
    issuer.away = True
    try:
        for account in ("before", "after"):
            assert installation.call("GET", TASKS, account=account).status == 200
        assert issuer.asked == asked
        issuer.rotate()
        installation.tokens["unknown"] = issuer.token("ann")
        _eventually(lambda: installation.call("GET", TASKS, account="unknown"), 503)
        assert installation.call("GET", TASKS, account="before").status == 200
    finally:
        issuer.away = False
    _eventually(lambda: installation.call("GET", TASKS, account="unknown"), 403)


def test_a_token_for_another_audience_is_none_here(installation: Installation) -> None:
    async def issued(client: KubeClient) -> str:
        path = resource_path("api/v1", "serviceaccounts", NAMESPACE, "allowed") + "/token"
        made = await client.request("POST", path, {"spec": {"audiences": ["vault"], "expirationSeconds": 3600}})
        return str(made["status"]["token"])

    installation.tokens["for another"] = installation.kube(issued)
    assert installation.call("GET", TASKS, account="for another").status == 401
    assert installation.call("GET", TASKS, account="allowed").status == 200


def test_an_account_is_registered_bound_by_the_administrator_and_used(installation: Installation) -> None:
    sent = {"username": "ann", "password": PASSWORD}
    registered = installation.call("POST", "/v1/auth/register", sent, account="")
    assert registered.status == 201
    stranger = sent | {"password": "a strangers password"}
    taken = installation.call("POST", "/v1/auth/register", stranger, account="")
    assert (taken.status, taken.json.keys()) == (201, registered.json.keys())
    assert installation.call("POST", "/v1/auth/token", sent, account="").status == 401
    binding = f"{NAMESPACE}/allowed"
    assert installation.command("accounts", "bind", "ann", taken.json["id"], binding).returncode == 3
    assert installation.command("accounts", "bind", "ann", registered.json["id"], binding).returncode == 0
    listed = installation.command("accounts", "list").stdout.splitlines()
    assert ["ann", registered.json["id"], binding] in [line.split() for line in listed]
    token = installation.call("POST", "/v1/auth/token", sent, account="")
    assert token.status == 200, token.body
    installation.tokens["account ann"] = token.json["accessToken"]
    assert installation.call("GET", TASKS, account="account ann").status == 200
    assert installation.call("GET", "/v1/namespaces/default/tasks", account="account ann").status == 403
    wrong = installation.call("POST", "/v1/auth/token", sent | {"password": "wrong horse battery"}, account="")
    assert wrong.status == 401
    assert installation.command("accounts", "unbind", "ann").returncode == 0
    _eventually(lambda: installation.call("GET", TASKS, account="account ann"), 401)
    assert installation.command("accounts", "delete", "ann").returncode == 0
    assert installation.call("POST", "/v1/auth/token", sent, account="").status == 401


def test_passwords_and_keys_are_never_logged(installation: Installation) -> None:
    text = installation.stack.log("api").read_text()
    assert "token_refused" in text
    assert PASSWORD not in text
    assert not any(token in text for token in installation.tokens.values())
