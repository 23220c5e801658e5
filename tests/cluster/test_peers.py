"""What a Task costs beside a Job, printed; the figures are not judged here."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.cluster.installation import WORK, Cluster

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]


def test_a_task_beside_a_job(installed: Cluster) -> None:
    environment = os.environ | {"KUBECONFIG": installed.kubeconfig, "NAMESPACE": WORK}
    done = subprocess.run(
        [sys.executable, "-m", "bench.jobs"], check=False, env=environment, capture_output=True, text=True
    )
    print(f"\n{done.stdout}")
    assert done.returncode == 0, done.stderr
    assert "ratio" in done.stdout
