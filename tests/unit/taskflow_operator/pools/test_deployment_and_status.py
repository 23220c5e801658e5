from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from taskflow_core.domain.workerpool import WorkerPool
from taskflow_core.errors import Invalid
from taskflow_operator.pools.deployment import deployment, deployment_name
from taskflow_operator.pools.status import PoolFacts, pool_status
from tests.builders import NOW


def pool(template: dict[str, Any] | None = None, **spec: Any) -> WorkerPool:
    return WorkerPool.from_object(
        {
            "metadata": {"uid": "u-1", "namespace": "team-a", "name": "main", "generation": 3},
            "spec": {"queues": ["b", "a"], "concurrency": 2, "replicas": 2, "template": template or {}} | spec,
        }
    )


def made(template: dict[str, Any] | None = None) -> dict[str, Any]:
    return deployment(pool(template), 2, image="taskflow-worker:1", lease_seconds=15)


def pod(template: dict[str, Any] | None = None) -> dict[str, Any]:
    found: dict[str, Any] = made(template)["spec"]["template"]["spec"]
    return found


def worker(template: dict[str, Any] | None = None) -> dict[str, Any]:
    (found,) = [each for each in pod(template)["containers"] if each["name"] == "worker"]
    return dict(found)


def with_worker(**fields: Any) -> dict[str, Any]:
    return {"spec": {"containers": [{"name": "worker", **fields}]}}


def env(container: dict[str, Any]) -> dict[str, Any]:
    names = [each["name"] for each in container["env"]]
    assert len(names) == len(set(names))
    return {each["name"]: each.get("value") for each in container["env"]}


def test_a_pool_without_a_template_is_a_deployment_of_our_image() -> None:
    found = made()
    assert found["metadata"]["name"] == deployment_name("main") == "main-workers"
    assert found["spec"]["replicas"] == 2
    labels = found["spec"]["template"]["metadata"]["labels"]
    assert found["spec"]["selector"]["matchLabels"] == labels
    assert worker()["image"] == "taskflow-worker:1"
    assert worker()["command"] == ["python", "-m", "taskflow_worker"]


def test_another_login_of_the_namespace_changes_the_pods_and_their_own_annotations_stay() -> None:
    before = pool({"metadata": {"annotations": {"own": "yes"}}})
    after = before.model_copy(update={"login": "2026-01-01T00:00:00Z"})
    notes = [
        deployment(each, 2, image="i", lease_seconds=15)["spec"]["template"]["metadata"]["annotations"]
        for each in (before, after)
    ]
    assert notes == [{"own": "yes"}, {"own": "yes", "workers.taskflow.dev/login": "2026-01-01T00:00:00Z"}]


def test_the_deployment_goes_with_its_pool() -> None:
    (owner,) = made()["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"], owner["uid"], owner["controller"]) == ("WorkerPool", "main", "u-1", True)


def test_the_worker_learns_what_it_serves() -> None:
    values = env(worker())
    assert values["TASKFLOW_WORKER_NAMESPACE"] == "team-a"
    assert values["TASKFLOW_WORKER_QUEUES"] == "a,b"
    assert values["TASKFLOW_WORKER_CONCURRENCY"] == "2"
    assert values["TASKFLOW_WORKER_LEASE_SECONDS"] == "15"
    assert values["TASKFLOW_WORKER_DRAIN_SECONDS"] == "50"
    assert worker()["envFrom"] == [{"secretRef": {"name": "taskflow-worker"}}]


@pytest.mark.parametrize(("spec", "kind"), [({}, "Prefork"), ({"pool": "Threads", "concurrency": 256}, "Threads")])
def test_the_worker_learns_what_its_slots_are(spec: dict[str, Any], kind: str) -> None:
    found = deployment(pool(**spec), 2, image="taskflow-worker:1", lease_seconds=15)
    (container,) = found["spec"]["template"]["spec"]["containers"]
    # In the pods' template, so that another kind is a rollout.
    assert env(container)["TASKFLOW_WORKER_POOL_KIND"] == kind


@pytest.mark.parametrize(("grace", "drain"), [(30, "20"), (10, "0"), (5, "0"), (3600, "3590")])
def test_the_drain_ends_before_the_grace_period(grace: int, drain: str) -> None:
    template = {"spec": {"terminationGracePeriodSeconds": grace}}
    assert env(worker(template))["TASKFLOW_WORKER_DRAIN_SECONDS"] == drain
    assert pod(template)["terminationGracePeriodSeconds"] == grace


def test_the_template_overrides_image_command_and_resources() -> None:
    resources = {"limits": {"memory": "1Gi"}}
    found = worker(with_worker(image="mine:2", command=["run"], resources=resources))
    assert (found["image"], found["command"], found["resources"]) == ("mine:2", ["run"], resources)


def test_a_worker_says_when_it_takes_messages_and_asks_for_resources() -> None:
    assert worker()["readinessProbe"]["exec"]["command"] == ["python", "-m", "taskflow_worker.readiness"]
    assert worker()["resources"] == {"requests": {"cpu": "100m", "memory": "128Mi"}}
    own = {"exec": {"command": ["true"]}}
    assert worker(with_worker(readinessProbe=own))["readinessProbe"] == own


def test_every_container_leaves_its_last_words_unless_it_says_otherwise() -> None:
    template = {"spec": {"initContainers": [{"name": "fetch"}], "containers": [{"name": "proxy"}]}}
    found = pod(template)
    policies = {
        each["name"]: each["terminationMessagePolicy"] for each in found["initContainers"] + found["containers"]
    }
    assert policies == dict.fromkeys(("fetch", "worker", "proxy"), "FallbackToLogsOnError")
    assert worker(with_worker(terminationMessagePolicy="File"))["terminationMessagePolicy"] == "File"
    assert "initContainers" not in pod()


def test_the_template_adds_variables_and_cannot_replace_ours() -> None:
    given = [{"name": "MODE", "value": "fast"}, {"name": "TASKFLOW_WORKER_QUEUES", "value": "everything"}]
    source = {"configMapRef": {"name": "more"}}
    found = worker(with_worker(env=given, envFrom=[source]))
    assert env(found)["MODE"] == "fast"
    assert env(found)["TASKFLOW_WORKER_QUEUES"] == "a,b"
    assert found["envFrom"] == [{"secretRef": {"name": "taskflow-worker"}}, source]


def test_further_containers_volumes_and_rules_are_taken_as_they_are() -> None:
    sidecar = {"name": "proxy", "image": "p"}
    template = {
        "metadata": {"labels": {"team": "x", "taskflow.dev/pool": "stolen"}, "annotations": {"a": "b"}},
        "spec": {"containers": [sidecar], "volumes": [{"name": "v"}], "nodeSelector": {"disk": "ssd"}},
    }
    found = made(template)["spec"]["template"]
    assert [each["name"] for each in found["spec"]["containers"]] == ["worker", "proxy"]
    assert found["spec"]["containers"][1] == {"terminationMessagePolicy": "FallbackToLogsOnError", **sidecar}
    assert found["spec"]["volumes"] == [{"name": "taskflow-scratch", "emptyDir": {}}, {"name": "v"}]
    assert found["spec"]["nodeSelector"] == {"disk": "ssd"}
    assert found["metadata"]["labels"] == {
        "team": "x",
        "taskflow.dev/pool": "main",
        "app.kubernetes.io/managed-by": "taskflow-operator",
    }
    assert found["metadata"]["annotations"] == {"a": "b"}


@pytest.mark.parametrize(
    "template", [{}, with_worker(image="x"), {"spec": {"volumes": []}}, {"spec": {"containers": [{"name": "other"}]}}]
)
def test_a_pod_keeps_to_restricted_pod_security_unless_it_says_otherwise(template: dict[str, Any]) -> None:
    assert pod(template)["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    assert worker(template)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }


@pytest.mark.parametrize("given", [{}, {"automountServiceAccountToken": True, "serviceAccountName": "powerful"}])
def test_no_worker_pod_ever_gets_a_token(given: dict[str, Any]) -> None:
    assert pod({"spec": given})["automountServiceAccountToken"] is False


def test_the_template_itself_is_not_changed() -> None:
    template = with_worker(env=[{"name": "A", "value": "1"}])
    before = repr(template)
    made(template)
    assert repr(template) == before


def found(*conditions: dict[str, str], generation: int = 1, **counts: int) -> dict[str, Any]:
    return {
        "metadata": {"generation": generation},
        "status": {"observedGeneration": 1, "conditions": list(conditions), **counts},
    }


READY = {"replicas": 2, "readyReplicas": 2, "updatedReplicas": 2}
DEADLINE = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "took too long"}
QUOTA = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "exceeded quota"}


@pytest.mark.parametrize(
    ("state", "refusal", "true", "reason"),
    [
        (found(**READY), None, "Ready", "WorkersReady"),
        (found(), None, "Reconciling", "WorkersStarting"),
        (None, None, "Reconciling", "WorkersStarting"),
        (found(**READY | {"readyReplicas": 1}), None, "Reconciling", "WorkersStarting"),
        (found(**READY | {"replicas": 3}), None, "Reconciling", "WorkersStarting"),
        (found(**READY | {"updatedReplicas": 1}), None, "Reconciling", "WorkersStarting"),
        (found(generation=2, **READY), None, "Reconciling", "WorkersStarting"),
        (found(DEADLINE), None, "Stalled", "DeploymentStuck"),
        (found(QUOTA, **READY), None, "Stalled", "DeploymentStuck"),
        (None, "spec.template: Invalid", "Stalled", "DeploymentRefused"),
    ],
)
def test_a_pool_is_ready_reconciling_or_stalled(state: Any, refusal: str | None, true: str, reason: str) -> None:
    status = pool_status(pool(), PoolFacts(deployment=state, refusal=refusal), NOW)
    holds = {each["type"]: each["status"] for each in status["conditions"]}
    assert holds == {kind: str(kind == true) for kind in ("Ready", "Reconciling", "Stalled")}
    assert {each["reason"] for each in status["conditions"]} == {reason}
    assert status["observedGeneration"] == 3


def test_a_pool_of_no_workers_is_ready_when_none_is_left() -> None:
    status = pool_status(pool(replicas=0), PoolFacts(deployment=found()), NOW)
    assert status["conditions"][0]["status"] == "True"
    assert status["replicas"] == status["readyReplicas"] == 0


def test_the_selector_is_the_one_of_its_pods() -> None:
    labels = made()["spec"]["template"]["metadata"]["labels"]
    assert pool_status(pool(), PoolFacts(), NOW)["selector"] == ",".join(f"{k}={v}" for k, v in sorted(labels.items()))


def test_a_status_that_did_not_change_is_the_same_and_times_stay() -> None:
    first = pool_status(pool(), PoolFacts(deployment=found(**READY)), NOW)
    later = pool().model_copy(update={"conditions": WorkerPool.from_object(body(first)).conditions})
    assert pool_status(later, PoolFacts(deployment=found(**READY)), NOW + timedelta(hours=1)) == first


def body(status: dict[str, Any]) -> dict[str, Any]:
    return {
        "metadata": {"uid": "u-1", "namespace": "team-a", "name": "main", "generation": 3},
        "spec": {"queues": ["a"]},
        "status": status,
    }


def test_a_long_refusal_is_cut_to_what_the_resource_holds() -> None:
    status = pool_status(pool(), PoolFacts(refusal="x" * 5000), NOW)
    assert {len(each["message"]) for each in status["conditions"]} == {1024}


def test_a_worker_has_room_to_write_although_its_root_is_read_only() -> None:
    assert {"name": "taskflow-scratch", "mountPath": "/tmp"} in worker({})["volumeMounts"]
    assert {"name": "taskflow-scratch", "emptyDir": {}} in pod({})["volumes"]


@pytest.mark.parametrize(
    "spec",
    [
        [1],
        {"containers": "abc"},
        {"containers": [None]},
        {"terminationGracePeriodSeconds": "60"},
        {"containers": [{"name": "worker", "env": {"A": "b"}}]},
        {"containers": [{"name": "worker", "envFrom": 5}]},
        {"containers": [{"name": "worker", "volumeMounts": "abc"}]},
        {"volumes": 5},
    ],
)
def test_a_template_that_is_no_pod_spec_is_refused_with_its_field(spec: Any) -> None:
    with pytest.raises(Invalid, match=r"expected .*, found "):
        made({"spec": spec})


def test_a_worker_logs_as_the_operator_unless_its_pool_says_how() -> None:
    defaults = {"TASKFLOW_LOG_LEVEL": "DEBUG", "TASKFLOW_LOG_FORMAT": "json"}

    def logging_of(template: dict[str, Any]) -> dict[str, str]:
        found = deployment(pool(template), 2, image="i", lease_seconds=15, env=defaults)
        (container,) = found["spec"]["template"]["spec"]["containers"]
        return {each["name"]: each["value"] for each in container["env"] if each["name"] in defaults}

    assert logging_of({}) == defaults
    own = with_worker(env=[{"name": "TASKFLOW_LOG_LEVEL", "value": "WARNING"}])
    assert logging_of(own) == defaults | {"TASKFLOW_LOG_LEVEL": "WARNING"}
