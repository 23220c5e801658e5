from __future__ import annotations

from pathlib import Path

import yaml

import taskflow_local


def test_no_role_may_create_pools_or_grant_its_rights() -> None:
    text = Path(taskflow_local.__file__).with_name("rbac.yaml").read_text()
    rules = [rule for document in yaml.safe_load_all(text) for rule in document.get("rules", ())]
    assert rules
    for rule in rules:
        assert "*" not in [*rule["resources"], *rule["verbs"], *rule["apiGroups"]]
        assert not {"bind", "escalate", "impersonate"} & set(rule["verbs"])
        if "workerpools" in rule["resources"]:
            assert not {"create", "update", "deletecollection"} & set(rule["verbs"])
