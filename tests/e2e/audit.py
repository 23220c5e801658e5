"""Audit logs of the API servers, of all stacks that the tests of this folder start: one in each process that shares the
tests.

`AUDIT_LOGS` names a folder in which they are kept, each in a folder of its own, with the names of the modules whose
tests ran.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path

from taskflow_local.stack import Stack

POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        {
            "level": "Metadata",
            "users": [
                f"system:serviceaccount:taskflow-system:taskflow-{component}"
                for component in ("operator", "api", "provisioner")
            ],
        },
        {"level": "None"},
    ],
}
_VARIABLE = "AUDIT_LOGS"
_RAN = ".ran"


def kept() -> Path | None:
    """Where they are kept, if they are."""
    folder = os.environ.get(_VARIABLE)
    return Path(folder) if folder else None


def begin(stack: Stack) -> None:
    """Have the API server of a stack write one; before it is started."""
    stack.folder.create()
    (stack.folder.conf / "audit-policy.yaml").write_text(json.dumps(POLICY))


def logs(stack: Stack) -> list[Path]:
    """Those of a stack."""
    return sorted(stack.folder.logs.glob("audit*.log"))


def keep(stack: Stack) -> None:
    """Copy those of a stack, if they are to be kept."""
    if folder := kept():
        place = tempfile.mkdtemp(dir=folder)
        for path in logs(stack):
            shutil.copy(path, place)


def note(module: str) -> None:
    """Say that tests of this module ran."""
    if folder := kept():
        (folder / f"{module}{_RAN}").touch()


def all_kept(folder: Path) -> tuple[list[Path], set[str]]:
    """All logs, and the modules whose tests ran."""
    return sorted(folder.glob("*/audit*.log")), {path.stem for path in folder.glob(f"*{_RAN}")}
