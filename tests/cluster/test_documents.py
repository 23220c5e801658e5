"""The commands of docs/install.md and of the chart's notes, as a reader types them, on the real cluster."""

from __future__ import annotations

import os
import re
import subprocess
import textwrap
from pathlib import Path

import pytest

from tests.cluster.installation import NAMESPACE, VALUES, Cluster
from tests.documents import CLUSTER_PAGES, ROOT, commands, shell_blocks

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]


def _shell(cluster: Cluster, folder: Path, script: str) -> str:
    binaries = folder / "bin"
    binaries.mkdir(exist_ok=True)
    if not (binaries / "helm").exists():
        (binaries / "helm").symlink_to(cluster.helm_path)
    environment = os.environ | {"KUBECONFIG": cluster.kubeconfig, "PATH": f"{binaries}:{os.environ['PATH']}"}
    command = ["bash", "-euo", "pipefail", "-c", script]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"
    return done.stdout


def test_every_command_of_the_page_and_of_the_notes_works(vacant: Cluster, tmp_path: Path) -> None:
    for name in ("charts", "examples"):
        (tmp_path / name).symlink_to(ROOT / name)
    # In place of the page's file: the same, and where this cluster's images are.
    (tmp_path / "values.yaml").write_text(Path(VALUES).read_text())
    typed = [command.words for page in CLUSTER_PAGES for block in shell_blocks(page) for command in commands(block)]
    assert len(typed) > 8
    for words in typed:
        said = _shell(vacant, tmp_path, words)
        if words.startswith("kubectl get"):
            assert "Succeeded" in said
        if words.startswith("helm install"):
            notes = vacant.helm("get", "notes", "taskflow")
            assert NAMESPACE in notes
            # All but the last line, which goes on until it is interrupted.
            shown = textwrap.dedent("\n".join(line for line in notes.splitlines() if line.startswith("  ")))
            script = re.sub(r"^kubectl port-forward.*$", "", shown, flags=re.MULTILINE)
            assert "Succeeded" in _shell(vacant, tmp_path, script)
            vacant.kubectl("delete", "tasks.taskflow.dev", "hello")
