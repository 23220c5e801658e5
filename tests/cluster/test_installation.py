"""One life of an installation, in the order of the page: installed, used, upgraded, rolled back, removed, installed
again.
"""

from __future__ import annotations

import base64
import gzip
import json

import pytest

from tests.cluster.installation import NAMESPACE, RELEASE, WORK, Cluster, Load, all_succeeded
from tests.e2e.product import eventually

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]
GENERATED = ("taskflow-token-key", "taskflow-dev-services")


def _generated(cluster: Cluster) -> dict[str, str]:
    return {key: text for name in GENERATED for key, text in cluster.secret(NAMESPACE, name).items()}


def test_helm_test_runs_a_task_through_rest(installed: Cluster) -> None:
    said = installed.helm("test", RELEASE, "--timeout", "5m")
    assert "Succeeded" in said
    made = installed.kubectl("get", "all,serviceaccount,role,rolebinding", "-A", "-o", "name")
    assert [line for line in made.splitlines() if "smoke" in line] == []


def test_a_task_by_rest_is_seen_by_kubectl_and_kept_in_the_history(installed: Cluster) -> None:
    path = f"/v1/namespaces/{WORK}/tasks"
    with installed.api() as api:
        body = {"name": "by-rest", "spec": {"handler": "taskflow.echo", "kwargs": {"value": "rest"}}}
        api.call("POST", path, body)
        installed.kubectl("wait", "-n", WORK, "tft/by-rest", "--for=condition=Complete", "--timeout=60s")
        listed = eventually(
            lambda: api.call("GET", f"{path}?phase=Succeeded")["items"],
            lambda items: "by-rest" in [item["name"] for item in items],
        )
        assert listed
        health = api.call("GET", "/readyz?verbose")
        assert {check["name"]: check["ok"] for check in health["checks"]} == dict.fromkeys(
            ("kubernetes", "postgresql", "objects"), True
        )


def test_a_handler_that_fails_is_retried_and_then_failed(installed: Cluster) -> None:
    found = installed.run("fails", "taskflow.fail", retryPolicy={"maxAttempts": 2, "backoffSeconds": 1})
    assert (found["status"]["phase"], found["status"]["attempt"]) == ("Failed", 2)


def test_the_release_and_its_manifest_hold_no_secret(installed: Cluster) -> None:
    # The access key of the API is the name of its user, as of its Deployment.
    secrets = {key: text for key, text in _generated(installed).items() if key != "s3-access-key"}
    values = [base64.b64decode(text).decode().strip() for text in secrets.values()]
    manifest = installed.helm("get", "manifest", RELEASE) + installed.helm("get", "values", RELEASE, "--all")
    stored = installed.json("-n", NAMESPACE, "secrets", "-l", "owner=helm")["items"]
    for each in stored:
        inner = base64.b64decode(base64.b64decode(each["data"]["release"]))
        manifest += gzip.decompress(inner).decode()
    assert stored
    assert [value for value in values if value in manifest] == []


def test_a_worker_has_no_token_no_database_and_no_word_with_the_api_server(installed: Cluster) -> None:
    (pod, *_) = installed.json("-n", WORK, "pods", "-l", "taskflow.dev/pool=main")["items"]
    look = (
        "import json, os, ssl, urllib.error, urllib.request\n"
        "address = f\"https://{os.environ['KUBERNETES_SERVICE_HOST']}:{os.environ['KUBERNETES_SERVICE_PORT']}/api/v1/secrets\"\n"
        "try:\n"
        "    code = urllib.request.urlopen(address, timeout=10, context=ssl._create_unverified_context()).status\n"
        "except urllib.error.HTTPError as error:\n"
        "    code = error.code\n"
        "token = os.path.exists('/var/run/secrets/kubernetes.io/serviceaccount/token')\n"
        "print(json.dumps([code, token, 'TASKFLOW_DATABASE_URL' in os.environ, os.getuid()]))\n"
    )
    said = installed.kubectl("exec", "-n", WORK, pod["metadata"]["name"], "--", "python", "-c", look)
    code, token, database, user = json.loads(said)
    assert code in (401, 403)
    assert (token, database) == (False, False)
    assert user > 0


def test_an_upgrade_and_a_rollback_under_load_lose_nothing(installed: Cluster) -> None:
    before = _generated(installed)
    with Load(installed, "upgrade", 20) as load:
        eventually(lambda: len(load.names), lambda number: number >= 60)
        installed.install("upgrade", "operator.replicas=2", "api.replicas=2", "logging.level=DEBUG")
        assert [len(installed.pods(component)) for component in ("operator", "api")] == [2, 2]
        budgets = installed.json("-n", NAMESPACE, "pdb")["items"]
        assert {budget["metadata"]["name"] for budget in budgets} == {f"{RELEASE}-operator", f"{RELEASE}-api"}
        installed.helm("rollback", RELEASE, "1", "--wait", "--timeout", "5m")
        eventually(lambda: len(installed.pods("operator")), lambda number: number == 1, 60)
    all_succeeded(installed, load)
    assert _generated(installed) == before


def test_a_standby_takes_over_when_the_leading_pod_goes(installed: Cluster) -> None:
    def holder() -> str:
        lease = installed.json("-n", NAMESPACE, "lease/taskflow-operator")
        return str(lease["spec"].get("holderIdentity", ""))

    installed.install("upgrade", "operator.replicas=2")
    names = {pod["metadata"]["name"] for pod in installed.pods("operator")}
    leader = eventually(holder, lambda name: name in names)
    with Load(installed, "takeover", 3) as load:
        installed.kubectl("delete", "pod", "-n", NAMESPACE, leader, "--wait=false")
        eventually(holder, lambda name: name not in ("", leader), 60)
        eventually(lambda: len(load.names), lambda number: number >= 12)
    all_succeeded(installed, load)


def test_removal_leaves_crds_tasks_and_passwords_and_the_next_installation_goes_on(installed: Cluster) -> None:
    before = _generated(installed)
    tasks = {item["metadata"]["name"] for item in installed.json("-n", WORK, "tasks.taskflow.dev")["items"]}
    installed.kubectl("delete", "-n", WORK, "workerpools.taskflow.dev", "--all", "--wait")
    said = installed.helm("uninstall", RELEASE, "--wait", "--timeout", "5m")
    assert "tasks.taskflow.dev" in said
    assert {item["metadata"]["name"] for item in installed.json("-n", WORK, "tasks.taskflow.dev")["items"]} == tasks

    def left() -> list[str]:
        kinds = "all,configmap,serviceaccount,role,rolebinding,networkpolicy,pdb"
        lines = installed.kubectl("get", kinds, "-n", NAMESPACE, "-o", "name").splitlines()
        return [line for line in lines if RELEASE in line]

    eventually(left, lambda lines: lines == [], 90)
    installed.install("install")
    assert _generated(installed) == before
    assert installed.run("again", "taskflow.echo", kwargs={"value": 1})["status"]["phase"] == "Succeeded"
