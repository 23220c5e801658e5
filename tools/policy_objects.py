"""The parts that the admission policies of policies/ have in common."""

from __future__ import annotations

from typing import Any

from policy_keywords import MESSAGE_BYTES

GROUP, VERSION = "taskflow.dev", "v1alpha1"
HANDLER = "params.spec.handlers.filter(h, h.name == object.spec.handler)[0]"
# An argument may stand at its position, and an array passes its items so.
POSITIONAL = "(has(object.spec.args) && size(object.spec.args) > 0) || has(object.spec.array)"

# A character has at most four bytes.
CUT = (
    f"size(bytes(variables.whole)) <= {MESSAGE_BYTES} ? variables.whole : "
    f"variables.whole.substring(0, {MESSAGE_BYTES // 4}) + ' ...'"
)


def of_tasks(condition: str, failure: str) -> dict[str, Any]:
    """A policy for created Tasks whose handler `h` of the template meets the condition."""
    return {
        "failurePolicy": failure,
        "paramKind": {"apiVersion": f"{GROUP}/{VERSION}", "kind": "TaskTemplate"},
        "matchConstraints": rule("tasks", "CREATE"),
        "matchConditions": [
            {
                "name": "handler",
                "expression": f"params.spec.handlers.exists(h, h.name == object.spec.handler && ({condition}))",
            }
        ],
    }


def rule(resources: str, *operations: str) -> dict[str, Any]:
    """Constraints that match these operations on one kind."""
    found = {"apiGroups": [GROUP], "apiVersions": [VERSION], "resources": [resources], "operations": list(operations)}
    return {"resourceRules": [found]}


def policy(kind: str, name: str, spec: dict[str, Any], binding: dict[str, Any]) -> list[dict[str, Any]]:
    """A policy and its binding, which holds it against each TaskTemplate of the Task's namespace."""
    head = {"apiVersion": "admissionregistration.k8s.io/v1"}
    if "paramKind" in spec:
        binding = binding | {"paramRef": {"selector": {}, "parameterNotFoundAction": "Allow"}}
    return [
        head | {"kind": f"{kind}AdmissionPolicy", "metadata": {"name": name}, "spec": spec},
        head
        | {"kind": f"{kind}AdmissionPolicyBinding", "metadata": {"name": name}, "spec": {"policyName": name} | binding},
    ]


def variable(name: str, expression: str) -> dict[str, str]:
    """A variable; it is computed when something first needs it."""
    return {"name": name, "expression": expression}
