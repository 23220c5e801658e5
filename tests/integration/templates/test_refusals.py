"""What a user gets told about arguments and templates: all of kubectl's text, kept in `golden.json`.

`UPDATE_GOLDEN=1` writes that file anew; read the difference before keeping it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration.crds.conftest import Cluster
from tests.integration.templates.conftest import apply, refusal, task, template

pytestmark = pytest.mark.integration
HERE = Path(__file__).parent
GOLDEN = HERE / "golden.json"
WRONG: dict[str, dict[str, Any]] = yaml.safe_load((HERE / "wrong.yaml").read_text())
WRONG_TEMPLATES: dict[str, dict[str, Any]] = yaml.safe_load((HERE / "wrong_templates.yaml").read_text())
NAMES = [*WRONG, *(f"template-{name}" for name in WRONG_TEMPLATES)]


def golden() -> dict[str, str]:
    found: dict[str, str] = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    return found


@pytest.fixture(scope="module")
def prepared(cluster: Cluster) -> Iterator[Cluster]:
    manifest = yaml.safe_load((HERE / "template.yaml").read_text())
    apply(cluster, manifest)
    yield cluster
    cluster.kubectl("delete", "tasktemplates.taskflow.dev", "--all")


@pytest.mark.parametrize("name", NAMES)
def test_what_is_wrong_is_refused_with_the_words_that_were_agreed(prepared: Cluster, name: str) -> None:
    if name in WRONG:
        manifest = task(**WRONG[name])
        manifest["metadata"] = {"name": "wrong", "namespace": "default"}
    else:
        schema = WRONG_TEMPLATES[name.removeprefix("template-")]
        manifest = template("wrong", {"name": "wrong.handler", "kwargs": schema})
    message = refusal(prepared, manifest)
    assert message, "it was admitted"
    if os.environ.get("UPDATE_GOLDEN"):
        GOLDEN.write_text(json.dumps(golden() | {name: message}, indent=2, sort_keys=True) + "\n")
    assert message == golden().get(name)


def test_every_golden_message_belongs_to_something_wrong() -> None:
    assert sorted(golden()) == sorted(NAMES)
    assert len(WRONG) >= 30


@pytest.mark.parametrize("name", WRONG)
def test_a_refusal_names_the_template_and_the_path(name: str) -> None:
    message = golden()[name]
    handler = WRONG[name]["handler"]
    assert f"denied request: TaskTemplate reports refuses handler {handler}: spec." in message


@pytest.mark.parametrize(
    "spec",
    [
        {"handler": "reports.build", "kwargs": {"region": "eu"}},
        {
            "handler": "reports.build",
            "kwargs": {"region": "us", "year": 2026.0, "ratio": 0.5, "note": None, "level": 1.0},
        },
        {
            "handler": "reports.build",
            "kwargs": {"region": "us", "tags": ["a"], "rows": [], "where": {"city": "x", "y": 1}},
        },
        {"handler": "reports.build", "kwargs": {"region": "us", "year": 2100, "prefix": "ab", "tags": ["a", "b", "c"]}},
        {"handler": "reports.build", "kwargs": {"region": "us", "year": 1990, "prefix": "abcde", "tags": ["a"]}},
        {"handler": "reports.build", "args": ["eu"]},
        {"handler": "reports.build", "array": {"items": ["eu"]}, "kwargs": {"year": 2026}},
        {"handler": "reports.any", "kwargs": {"what": ["ever"]}, "priority": 9},
        {"handler": "reports.none"},
        {"handler": "reports.restricted", "priority": 9, "kwargs": {"a": 1}, "suspend": True},
        {"handler": "reports.unknown", "kwargs": {"a": 1}},
    ],
)
def test_what_is_right_is_admitted(prepared: Cluster, spec: dict[str, Any]) -> None:
    assert refusal(prepared, task(**spec)) == ""


def test_a_deprecated_handler_is_warned_of(prepared: Cluster) -> None:
    done = prepared.run("create", "--dry-run=server", "-f", "-", manifest=task("reports.old"))
    assert done.returncode == 0
    assert "handler reports.old is deprecated: use reports.build" in done.stderr


def test_templates_of_another_namespace_do_not_count(prepared: Cluster) -> None:
    prepared.run("create", "namespace", "elsewhere")
    manifest = task("reports.build")
    manifest["metadata"]["namespace"] = "elsewhere"
    assert refusal(prepared, manifest) == ""


def test_a_task_has_to_fit_every_template_of_its_handler(prepared: Cluster) -> None:
    strict = {"type": "object", "properties": {"year": {"type": "integer", "minimum": 2000}}}
    apply(prepared, template("stricter", {"name": "reports.build", "kwargs": strict}))
    try:
        said = refusal(prepared, task("reports.build", kwargs={"region": "eu", "year": 1995}))
        assert "TaskTemplate stricter refuses" in said
    finally:
        prepared.kubectl("delete", "tasktemplates.taskflow.dev", "stricter")


def test_what_exists_may_still_change_after_the_template_did(prepared: Cluster) -> None:
    made = prepared.create(task("reports.later", kwargs={"a": 1}))
    closed = {"name": "reports.later", "kwargs": {"type": "object", "additionalProperties": False}}
    apply(prepared, template("later", closed))
    prepared.kubectl(
        "patch", "tasks.taskflow.dev", made["metadata"]["name"], "--type=merge", "-p", '{"spec":{"cancel":true}}'
    )
    prepared.kubectl("delete", "tasktemplates.taskflow.dev", "later")
