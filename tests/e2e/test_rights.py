"""What operator, API and provisioner asked the API server for while all tests of this folder ran, held against what
they may ask for.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tests.chart.rendering import ROOT
from tests.e2e import audit
from tests.e2e.product import Product

pytestmark = pytest.mark.e2e

UNUSED = {
    # The API server asks for it when an apply makes a Deployment, and says `patch` all the same; of workers that are of
    # no use tests/unit/taskflow_operator/pools has one.
    "operator": {"create deployments.apps", "delete pods"},
    "api": set[str](),
    # Likewise of an apply.
    "provisioner": {"create secrets"},
}
"""Rights of which the log says nothing, and why they are given all the same."""


def granted(component: str) -> set[str]:
    """Verb and resource of each right, those of the Lease left out, which the chart grants by name."""
    roles = yaml.safe_load((ROOT / "charts" / "taskflow" / "files" / "rules.yaml").read_text())
    return {
        f"{verb} {resource}{'.' + group if group else ''}"
        for rule in roles[component]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


@pytest.fixture(scope="module")
def logs(request: pytest.FixtureRequest) -> list[Path]:
    """Of all stacks, once all other tests of this folder ran."""
    if (folder := audit.kept()) is None:
        product: Product = request.getfixturevalue("product")
        return audit.logs(product.stack)
    found, ran = audit.all_kept(folder)
    others = {path.stem for path in Path(__file__).parent.glob("test_*.py")} - {Path(__file__).stem}
    assert others - ran == set(), "these did not run: what they use is in no log"
    assert found
    return found


def asked(logs: list[Path], component: str) -> tuple[set[str], set[str]]:
    """Verb and resource of what was asked for, and of what was allowed: an API server that just started refuses
    everything at first.
    """
    everything, allowed = set[str](), set[str]()
    user = f"system:serviceaccount:taskflow-system:taskflow-{component}"
    for path in logs:
        for line in path.read_text().splitlines():
            event = json.loads(line)
            about = event.get("objectRef")
            if event["user"]["username"] != user or about is None or about["resource"] == "leases":
                continue
            resource = "/".join(filter(None, (about["resource"], about.get("subresource"))))
            group = about.get("apiGroup")
            right = f"{event['verb']} {resource}{'.' + group if group else ''}"
            everything.add(right)
            if event.get("annotations", {}).get("authorization.k8s.io/decision") == "allow":
                allowed.add(right)
    return everything, allowed


@pytest.mark.parametrize("component", ["operator", "api", "provisioner"])
def test_each_right_is_used_and_none_is_missing(logs: list[Path], component: str) -> None:
    everything, allowed = asked(logs, component)
    assert everything - granted(component) == set()
    assert granted(component) - allowed == UNUSED[component]
