"""What a Task with `spec.rerun` did before, under the same name. Pure."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from taskflow_core.domain.phases import Phase
from taskflow_core.domain.task import Rerun, StoredOutput, TaskSpec

_WORK = frozenset({"handler", "args", "kwargs", "inputs", "outputs", "isolation", "array"})
"""The fields that change what is done. How, when and where it is done may change without making it other work."""


@dataclass(frozen=True)
class PastRun:
    """How a Task ended that did the same work."""

    uid: str
    phase: Phase
    finished_at: datetime
    result: Any = None
    outputs: tuple[StoredOutput, ...] = ()

    def prevents(self, rerun: Rerun) -> bool:
        """Whether a Task of this policy does not run because of it."""
        return rerun is Rerun.NEVER or (rerun is Rerun.UNLESS_SUCCEEDED and self.phase is Phase.SUCCEEDED)


def digest(spec: TaskSpec) -> str:
    """What names the work of a Task besides its name, as `v1:` and 64 hexadecimal digits.

    A field that is equal to its default is left out, so that a field or default that a later version adds changes no
    digest of today. Another way to compute it has to have another version: after it nothing is found, and all runs
    again.
    """
    work = spec.model_dump(mode="json", by_alias=True, include=set(_WORK), exclude_defaults=True)
    text = json.dumps(work, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return "v1:" + hashlib.sha256(text.encode()).hexdigest()
