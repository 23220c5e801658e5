"""Embeds the specification of a Task into CRDs whose resources create Tasks.

A CRD marks the place in its schema by two comments, and `make gen` writes what stands between them:

    spec:
      # BEGIN Task spec: written by `make gen`
      # END Task spec

So a field that is added to Task is never missing there.
"""

from __future__ import annotations

import copy
import re
import textwrap
from pathlib import Path
from typing import Any

import yaml

CRDS = Path(__file__).resolve().parent.parent / "crds"
LEFT_OUT = ("cancel", "suspend", "notBefore")
"""Fields of a Task that its creator decides on."""
_BLOCK = re.compile(
    r"^(?P<indent> *)# BEGIN Task spec: written by `make gen`\n.*?^(?P=indent)# END Task spec\n",
    re.MULTILINE | re.DOTALL,
)


def files() -> dict[Path, str]:
    """Content of each CRD that embeds the specification."""
    found = {path: path.read_text() for path in sorted(CRDS.glob("*.yaml"))}
    return {path: embed(text) for path, text in found.items() if _BLOCK.search(text)}


def embed(text: str) -> str:
    """A CRD with the specification written between its two comments."""
    spec = yaml.safe_dump(task_spec(), sort_keys=False, width=200)

    def block(match: re.Match[str]) -> str:
        indent = match["indent"]
        begin, end = f"{indent}# BEGIN Task spec: written by `make gen`\n", f"{indent}# END Task spec\n"
        return begin + textwrap.indent(spec, indent) + end

    return _BLOCK.sub(block, text)


def task_spec() -> dict[str, Any]:
    """Schema of a Task's specification for another resource: without `LEFT_OUT`, and without rules about changes."""
    crd = yaml.safe_load((CRDS / "tasks.taskflow.dev.yaml").read_text())
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    spec: dict[str, Any] = _without_transitions(copy.deepcopy(schema))
    spec["description"] = "The specification of the Tasks that are created."
    for name in LEFT_OUT:
        del spec["properties"][name]
    return spec


def _without_transitions(node: Any) -> Any:
    if isinstance(node, list):
        return [_without_transitions(each) for each in node]
    if not isinstance(node, dict):
        return node
    kept = {key: _without_transitions(value) for key, value in node.items() if key != "x-kubernetes-validations"}
    rules = [rule for rule in node.get("x-kubernetes-validations", ()) if "oldSelf" not in rule["rule"]]
    return kept | ({"x-kubernetes-validations": rules} if rules else {})
