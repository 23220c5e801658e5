import json
import signal
from pathlib import Path

import pytest
import redis

from taskflow_local.stack import Stack
from tests.integration.local.cluster import (
    apply,
    container_state,
    is_ready,
    is_waiting_for,
    kubectl,
    make_deployment,
    make_pod,
    pods,
    process_exists,
    running_pid,
    script,
    status_of,
    wait_for,
)

pytestmark = pytest.mark.integration

POLITE = script(
    """
    import os, pathlib, signal, sys, time
    out = pathlib.Path(os.environ["OUT"])
    def leave(*_):
        (out / f"{os.environ['POD']}.left").write_text("politely")
        sys.exit(0)
    signal.signal(signal.SIGTERM, leave)
    (out / f"{os.environ['POD']}.started").write_text(os.environ["GREETING"])
    while True:
        time.sleep(60)
    """
)


def make_polite(out: Path, greeting: str) -> dict[str, object]:
    env = [
        {"name": "OUT", "value": str(out)},
        {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "GREETING", "value": greeting},
    ]
    return {"env": env}


def test_a_pod_that_was_declared_lost_is_shown_ready_again(stack: Stack, tmp_path: Path) -> None:
    # What the node controller does to the Pods of a node that it has not heard of for a while.
    apply(stack, make_pod("declared-lost", POLITE, container=make_polite(tmp_path, "one")))
    wait_for("a ready pod", lambda: [pod for pod in pods(stack, "declared-lost") if is_ready(pod)])
    lost = json.dumps({"status": {"conditions": [{"type": "Ready", "status": "False"}]}})
    kubectl(stack, "patch", "pod", "declared-lost", "--subresource=status", "--type=strategic", "-p", lost)
    wait_for("a ready pod again", lambda: [pod for pod in pods(stack, "declared-lost") if is_ready(pod)])
    kubectl(stack, "delete", "pod", "declared-lost")


def test_a_deployment_scales_down_politely_and_rolls_out_a_changed_environment(stack: Stack, tmp_path: Path) -> None:
    apply(stack, make_deployment("polite", POLITE, 2, container=make_polite(tmp_path, "one")))
    kubectl(stack, "rollout", "status", "deployment/polite", "--timeout=20s")
    first = {pod["metadata"]["name"]: running_pid(pod) for pod in pods(stack, "polite")}
    assert len(first) == 2
    wait_for("both scripts", lambda: len(list(tmp_path.glob("*.started"))) == 2)

    kubectl(stack, "scale", "deployment/polite", "--replicas=1")
    (left,) = wait_for("one polite end", lambda: list(tmp_path.glob("*.left")))
    wait_for("one pod", lambda: len(pods(stack, "polite")) == 1)
    assert not process_exists(first[left.stem])
    assert left.read_text() == "politely"

    apply(stack, make_deployment("polite", POLITE, 1, container=make_polite(tmp_path, "two")))
    kubectl(stack, "rollout", "status", "deployment/polite", "--timeout=20s")
    (pod,) = wait_for(
        "only the new pod", lambda: [p for p in [pods(stack, "polite")] if len(p) == 1 and is_ready(p[0])]
    )[0]
    assert pod["metadata"]["name"] not in first
    started = tmp_path / f"{pod['metadata']['name']}.started"
    wait_for("the new script", started.exists)
    assert started.read_text() == "two"

    kubectl(stack, "delete", "deployment/polite")
    wait_for("no pod", lambda: not pods(stack, "polite"))
    assert not process_exists(running_pid(pod))


def test_a_crash_loop_is_reported_with_its_exit_code(stack: Stack) -> None:
    apply(stack, make_pod("crash", script("import sys; print('giving up'); sys.exit(3)")))
    wait_for("the back-off", lambda: is_waiting_for(stack, "crash", "CrashLoopBackOff"))
    (container,) = status_of(stack, "crash")["containerStatuses"]
    assert container["lastState"]["terminated"]["exitCode"] == 3
    assert container["restartCount"] == 1
    assert container["ready"] is False
    kubectl(stack, "delete", "pod", "crash", "--wait=true", "--timeout=10s")


def test_a_container_that_fails_leaves_the_end_of_its_log_where_it_asks_for_that(stack: Stack) -> None:
    asks = {"terminationMessagePolicy": "FallbackToLogsOnError"}
    said = "import sys; print('x' * 5000); print('no such module'); sys.exit(3)"
    apply(stack, make_pod("last-words", script(said), container=asks))
    apply(stack, make_pod("no-words", script(said)))

    def message(name: str) -> str | None:
        found = status_of(stack, name).get("containerStatuses") or [{}]
        ended = (found[0].get("lastState") or {}).get("terminated")
        return None if ended is None else str(ended.get("message", ""))

    words = wait_for("the end of the first run", lambda: message("last-words") or "")
    assert words.endswith("xxx\nno such module\n")
    assert len(words) == 2048
    wait_for("the end of the first run", lambda: message("no-words") is not None)
    assert message("no-words") == ""
    kubectl(stack, "delete", "pod", "last-words", "no-words")


def test_a_pod_is_ready_while_its_probe_passes(stack: Stack, tmp_path: Path) -> None:
    file = tmp_path / "ready"
    program = f"import os, sys; sys.exit(0 if os.path.exists({str(file)!r}) else 1)"
    probe = {"exec": {"command": ["python", "-c", program]}, "periodSeconds": 1, "failureThreshold": 1}
    apply(stack, make_pod("probed", script("import time; time.sleep(600)"), container={"readinessProbe": probe}))
    wait_for("a running container", lambda: "running" in container_state(stack, "probed"))
    assert not any(is_ready(pod) for pod in pods(stack, "probed"))
    file.touch()
    wait_for("a ready pod", lambda: [pod for pod in pods(stack, "probed") if is_ready(pod)])
    file.unlink()
    wait_for("a pod that is not ready", lambda: [pod for pod in pods(stack, "probed") if not is_ready(pod)])
    kubectl(stack, "delete", "pod", "probed")


def test_a_missing_secret_is_reported_and_the_pod_starts_once_it_exists(stack: Stack) -> None:
    container = {"envFrom": [{"secretRef": {"name": "late"}}]}
    apply(
        stack,
        make_pod("needy", script("import os, time; print(os.environ['KEY']); time.sleep(60)"), container=container),
    )
    wait_for("the report", lambda: is_waiting_for(stack, "needy", "CreateContainerConfigError"))
    assert container_state(stack, "needy")["waiting"]["message"] == 'secret "late" not found'
    assert status_of(stack, "needy")["phase"] == "Pending"
    kubectl(stack, "create", "secret", "generic", "late", "--from-literal=KEY=now-there")
    wait_for("the start", lambda: container_state(stack, "needy").get("running"))
    log = next(stack.folder.pods.glob("default_needy_*")) / "main.log"
    wait_for("the output", lambda: log.read_text() == "now-there\n")
    kubectl(stack, "delete", "pod", "needy", "--timeout=20s")


def test_kubectl_logs_shows_what_a_container_printed_and_follows_it_to_its_end(stack: Stack) -> None:
    apply(stack, make_pod("talker", script("for n in range(5): print('line', n)"), restartPolicy="Never"))
    wait_for("the end", lambda: status_of(stack, "talker").get("phase") == "Succeeded")
    everything = "".join(f"line {number}\n" for number in range(5))
    assert kubectl(stack, "logs", "talker") == everything
    assert kubectl(stack, "logs", "talker", "--tail=2") == "line 3\nline 4\n"
    assert kubectl(stack, "logs", "talker", "-f") == everything
    kubectl(stack, "delete", "pod", "talker", "--timeout=10s")


def test_a_container_without_a_command_is_reported(stack: Stack) -> None:
    apply(stack, make_pod("image-only", []))
    wait_for("the report", lambda: is_waiting_for(stack, "image-only", "CreateContainerConfigError"))
    assert "no images" in container_state(stack, "image-only")["waiting"]["message"]
    kubectl(stack, "delete", "pod", "image-only", "--timeout=10s")


@pytest.mark.parametrize(("code", "phase"), [(0, "Succeeded"), (7, "Failed")])
def test_a_pod_that_is_never_restarted_ends_with_a_phase(stack: Stack, code: int, phase: str) -> None:
    name = phase.lower()
    apply(stack, make_pod(name, script(f"raise SystemExit({code})"), restartPolicy="Never"))
    wait_for("the end", lambda: status_of(stack, name).get("phase") == phase)
    assert container_state(stack, name)["terminated"]["exitCode"] == code
    kubectl(stack, "delete", "pod", name, "--timeout=10s")


def test_a_program_that_does_not_exist_is_a_start_error(stack: Stack) -> None:
    apply(stack, make_pod("typo", ["no-such-program"], restartPolicy="Never"))
    wait_for("the end", lambda: status_of(stack, "typo").get("phase") == "Failed")
    ended = container_state(stack, "typo")["terminated"]
    assert (ended["reason"], ended["exitCode"]) == ("StartError", 128)
    assert "no-such-program" in ended["message"]
    kubectl(stack, "delete", "pod", "typo", "--timeout=10s")


def test_who_ignores_sigterm_is_killed_after_the_grace_period_children_included(stack: Stack, tmp_path: Path) -> None:
    stubborn = script(
        """
        import os, pathlib, signal, subprocess, sys, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        pathlib.Path(os.environ["OUT"]).write_text(f"{os.getpid()} {child.pid}")
        time.sleep(600)
        """
    )
    out = tmp_path / "pids"
    container = {"env": [{"name": "OUT", "value": str(out)}]}
    apply(stack, make_pod("stubborn", stubborn, container=container, terminationGracePeriodSeconds=1))
    wait_for("the pids", lambda: out.exists() and out.read_text().count(" ") == 1)
    pids = [int(pid) for pid in out.read_text().split()]
    assert all(process_exists(pid) for pid in pids)
    kubectl(stack, "delete", "pod", "stubborn", "--timeout=15s")
    assert not any(process_exists(pid) for pid in pids)


def test_the_parts_of_taskflow_may_do_what_they_need_and_no_more(stack: Stack) -> None:
    def may(account: str, verb: str, resource: str, namespace: str = "default") -> bool:
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {
                "user": f"system:serviceaccount:{account}",
                "resourceAttributes": {"verb": verb, "namespace": namespace, **_resource(resource)},
            },
        }
        answer = json.loads(kubectl(stack, "create", "-f", "-", "-o", "json", manifest=review))
        return bool(answer["status"]["allowed"])

    operator, api, client = (
        "taskflow-system:taskflow-operator",
        "taskflow-system:taskflow-api",
        "default:taskflow-client",
    )
    assert may(operator, "patch", "taskflow.dev/tasks/status")
    # Those of TaskSchedules.
    assert may(operator, "create", "taskflow.dev/tasks")
    assert not may(operator, "patch", "taskflow.dev/taskschedules")
    assert may(operator, "create", "batch/jobs")
    assert not may(operator, "create", "/pods")
    assert not may(operator, "get", "/secrets")
    assert may(api, "create", "taskflow.dev/tasks")
    assert not may(api, "list", "/pods")
    assert may(client, "create", "taskflow.dev/tasks")
    assert not may(client, "create", "taskflow.dev/tasks", "kube-system")


def _resource(text: str) -> dict[str, str]:
    group, resource, *sub = text.split("/")
    return {"group": group, "resource": resource} | ({"subresource": sub[0]} if sub else {})


def test_a_client_of_the_stack_is_its_own_service_account(stack: Stack) -> None:
    arguments = ("auth", "whoami", "-o", "jsonpath={.status.userInfo.username}")
    found = kubectl(stack, "--token", stack.env()["TASKFLOW_API_TOKEN"], *arguments)
    assert found == "system:serviceaccount:default:taskflow-client"


def test_workers_in_an_added_namespace_find_redis(stack: Stack) -> None:
    stack.add_namespace("team-a")
    stack.add_namespace("team-a")
    container = {"envFrom": [{"secretRef": {"name": "taskflow-worker"}}]}
    pod = make_pod(
        "worker",
        script("import os; print(os.environ['TASKFLOW_REDIS_URL'])"),
        container=container,
        restartPolicy="Never",
    )
    pod["metadata"]["namespace"] = "team-a"
    apply(stack, pod)
    question = ("-n", "team-a", "get", "pod", "worker", "-o", "jsonpath={.status.phase}")
    wait_for("the end", lambda: kubectl(stack, *question) == "Succeeded")
    url = kubectl(stack, "-n", "team-a", "logs", "worker").strip()
    assert url == stack.worker_env("team-a")["TASKFLOW_REDIS_URL"] != stack.env()["TASKFLOW_REDIS_URL"]
    with redis.Redis.from_url(url) as client:
        assert client.ping()


def test_the_crds_of_this_repository_are_served_after_apply_crds(stack: Stack) -> None:
    names = stack.apply_crds()
    assert "tasks.taskflow.dev" in names
    assert json.loads(kubectl(stack, "get", "tasks.taskflow.dev", "-o", "json"))["items"] == []


def test_a_killed_node_starts_its_pods_again_and_leaves_no_second_process(stack: Stack) -> None:
    apply(stack, make_pod("survivor", script("import time; time.sleep(600)")))
    wait_for("the start", lambda: container_state(stack, "survivor").get("running"))
    before = running_pid(pods(stack, "survivor")[0])
    stack.stop("node", signal.SIGKILL)
    assert process_exists(before)
    stack.start("node")
    assert not process_exists(before)
    (pod,) = wait_for(
        "another process", lambda: [p for p in pods(stack, "survivor") if is_ready(p) and running_pid(p) != before]
    )
    assert pod["status"]["containerStatuses"][0]["restartCount"] == 1
    assert process_exists(running_pid(pod))
    kubectl(stack, "delete", "pod", "survivor", "--timeout=20s")


def test_a_killed_node_does_not_run_again_what_is_never_restarted(stack: Stack, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    body = script("import os, time; open(os.environ['RAN'], 'a').write('x'); time.sleep(600)")
    apply(stack, make_pod("once", body, restartPolicy="Never", container={"env": [{"name": "RAN", "value": str(ran)}]}))
    wait_for("the start", lambda: ran.exists() and container_state(stack, "once").get("running"))
    stack.stop("node", signal.SIGKILL)
    stack.start("node")
    wait_for("the end", lambda: status_of(stack, "once").get("phase") == "Failed")
    assert container_state(stack, "once")["terminated"]["exitCode"] == 137
    assert ran.read_text() == "x"
    kubectl(stack, "delete", "pod", "once", "--timeout=20s")
