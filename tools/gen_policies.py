"""Generates policies/: the admission policies for Tasks and TaskTemplates, from the modules `policy_*`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from policy_arguments import arguments
from policy_objects import HANDLER, POSITIONAL, of_tasks, policy, variable
from policy_subset import templates

ROOT = Path(__file__).resolve().parent.parent
POLICIES = ROOT / "policies"


def files() -> dict[Path, str]:
    """Content of each generated file."""
    found = {"arguments": arguments(), "deprecated": deprecated(), "templates": templates(), "defaults": defaults()}
    head = "# Written by `make gen` from tools/gen_policies.py.\n"
    return {
        POLICIES / f"{name}.yaml": head + yaml.safe_dump_all(documents, sort_keys=False, width=1_000_000)
        for name, documents in found.items()
    }


def deprecated() -> list[dict[str, Any]]:
    """Warns who creates a Task of a deprecated handler."""
    words = f"'handler ' + object.spec.handler + ' is deprecated: ' + {HANDLER}.deprecated"
    spec = of_tasks("has(h.deprecated)", failure="Ignore") | {
        "validations": [
            {"expression": "false", "messageExpression": words, "message": "the handler of this Task is deprecated"}
        ]
    }
    return policy("Validating", "taskflow-deprecated", spec, {"validationActions": ["Warn"]})


def defaults() -> list[dict[str, Any]]:
    """Writes the defaults of a TaskTemplate into a Task that leaves them out."""
    spec = of_tasks("has(h.defaults)", failure="Ignore")
    value = "variables.defaults.kwargs[k]"
    of_kwargs = (
        "has(variables.defaults.kwargs) && size(variables.defaults.kwargs) > 0 && !variables.positional ? "
        "(has(object.spec.kwargs) ? [] : [JSONPatch{op: 'add', path: '/spec/kwargs', value: {}}]) + "
        "variables.defaults.kwargs.filter(k, !has(object.spec.kwargs) || !(k in object.spec.kwargs)).map(k, "
        f"JSONPatch{{op: 'add', path: '/spec/kwargs/' + jsonpatch.escapeKey(k), value: {value}}}) : []"
    )
    of_fields = [
        f"(has(variables.defaults.{name}) && !has(object.spec.{name}) ? "
        f"[JSONPatch{{op: 'add', path: '/spec/{name}', value: variables.defaults.{name}}}] : [])"
        for name in _fields_of_defaults()
        if name != "kwargs"
    ]
    spec |= {
        "reinvocationPolicy": "Never",
        "variables": [
            variable("positional", POSITIONAL),
            variable("defaults", f"{HANDLER}.defaults"),
        ],
        "mutations": [
            {"patchType": "JSONPatch", "jsonPatch": {"expression": " + ".join([f"({of_kwargs})", *of_fields])}}
        ],
    }
    return policy("Mutating", "taskflow-defaults", spec, {})


def _fields_of_defaults() -> list[str]:
    crd = yaml.safe_load((ROOT / "crds" / "tasktemplates.taskflow.dev.yaml").read_text())
    spec = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    return list(spec["handlers"]["items"]["properties"]["defaults"]["properties"])
