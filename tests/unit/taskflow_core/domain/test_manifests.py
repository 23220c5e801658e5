from dataclasses import dataclass
from typing import Any

from taskflow_core.domain.manifests import MAX_RETRY_PREFIX, retry_manifest, retry_prefix, task_manifest
from taskflow_core.domain.task import Owner, Task


@dataclass(frozen=True)
class Old:
    uid: str
    spec: dict[str, Any]
    labels: dict[str, str] | None


def test_a_manifest_has_what_it_was_given_and_no_empty_metadata() -> None:
    assert task_manifest({"handler": "a.b"}, name="one") == {
        "apiVersion": "taskflow.dev/v1alpha1",
        "kind": "Task",
        "metadata": {"name": "one"},
        "spec": {"handler": "a.b"},
    }
    made = task_manifest({"handler": "a.b"}, generate_name="one-", labels={"team": "a"}, annotations={"x": "y"})
    assert made["metadata"] == {"generateName": "one-", "labels": {"team": "a"}, "annotations": {"x": "y"}}


def test_a_manifest_shares_nothing_with_its_arguments() -> None:
    spec, labels = {"handler": "a.b"}, {"team": "a"}
    made = task_manifest(spec, name="one", labels=labels)
    made["spec"]["queue"] = "other"
    made["metadata"]["labels"]["team"] = "b"
    assert (spec, labels) == ({"handler": "a.b"}, {"team": "a"})


def test_a_retry_repeats_the_spec_but_not_its_cancellation() -> None:
    spec = {"handler": "a.b", "priority": 3, "cancel": True, "suspend": True, "notBefore": None}
    made = retry_manifest(Old("u1", spec, {"team": "a"}), name="one-2")
    assert made["spec"] == {"handler": "a.b", "priority": 3}
    assert made["metadata"] == {
        "name": "one-2",
        "labels": {"team": "a"},
        "annotations": {"taskflow.dev/retried-from": "u1"},
    }


def test_a_retry_of_a_task_with_unknown_labels_has_none() -> None:
    assert "labels" not in retry_manifest(Old("u1", {"handler": "a.b"}, None), generate_name="one-")["metadata"]


def test_the_prefix_of_a_retry_leaves_room_for_a_suffix_and_ends_with_one_dash() -> None:
    assert retry_prefix("one") == "one-"
    assert retry_prefix("x" * 253) == "x" * MAX_RETRY_PREFIX + "-"
    assert retry_prefix("x" * (MAX_RETRY_PREFIX - 1) + ".yy") == "x" * (MAX_RETRY_PREFIX - 1) + "-"


def test_a_task_of_an_owner_is_read_back_as_its_child() -> None:
    owner = Owner(kind="TaskSchedule", name="nightly", uid="s-1")
    manifest = task_manifest({"handler": "h"}, name="nightly.1", owner=owner)
    server = {"uid": "u", "namespace": "team-a", "creationTimestamp": "2030-01-01T00:00:00Z"}
    assert Task.from_object({**manifest, "metadata": {**manifest["metadata"], **server}}).owner == owner
    foreign = {**manifest["metadata"]["ownerReferences"][0], "apiVersion": "apps/v1"}
    metadata = {**manifest["metadata"], **server, "ownerReferences": [foreign]}
    assert Task.from_object({**manifest, "metadata": metadata}).owner is None
