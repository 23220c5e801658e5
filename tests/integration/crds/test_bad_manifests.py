"""What a user gets told: the API server's own words, kept in `golden.json`.

`UPDATE_GOLDEN=1` writes that file anew; read the difference before keeping it.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import yaml

from tests.integration.crds.conftest import Cluster

pytestmark = pytest.mark.integration
HERE = Path(__file__).parent
GOLDEN = HERE / "golden.json"
BAD = sorted((HERE / "bad").glob("*.yaml"))


def golden() -> dict[str, str]:
    found: dict[str, str] = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    return found


def refusal(cluster: Cluster, path: Path) -> str:
    done = cluster.run("create", "--validate=strict", "-f", str(path))
    assert done.returncode != 0, f"{path.name} was admitted"
    return done.stderr.strip().replace(str(path), path.name)


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_a_bad_manifest_is_refused_with_the_words_that_were_agreed(cluster: Cluster, path: Path) -> None:
    message = refusal(cluster, path)
    if os.environ.get("UPDATE_GOLDEN"):
        GOLDEN.write_text(json.dumps(golden() | {path.stem: message}, indent=2, sort_keys=True) + "\n")
    assert message == golden().get(path.stem)


def test_every_golden_message_belongs_to_a_manifest() -> None:
    assert sorted(golden()) == sorted(path.stem for path in BAD)


def test_there_is_a_bad_manifest_for_every_kind() -> None:
    kinds = [yaml.safe_load(path.read_text())["kind"] for path in BAD]
    assert set(kinds) == {"Task", "TaskSchedule", "WorkerPool"}
    assert all(kinds.count(kind) >= 17 for kind in kinds)
