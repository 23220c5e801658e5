"""The tests' own rules: nothing is left running, and what needs the same servers stays together."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.groups import group_of
from tests.session import left_running


@pytest.mark.parametrize("known_by", ["environment", "arguments", "folder"])
def test_a_process_that_is_left_running_is_found(tmp_path: Path, known_by: str) -> None:
    environment = {"HOME": str(tmp_path / "home")} if known_by == "environment" else {}
    name = str(tmp_path) if known_by == "arguments" else "sh"
    with subprocess.Popen(
        ["sh", "-c", "echo; read end", name],
        env={"PATH": os.defpath, **environment},
        cwd=tmp_path if known_by == "folder" else "/",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert left_running(tmp_path, seconds=0) == {process.pid: f"sh -c echo; read end {name}"}
        process.communicate(b"\n")
    assert left_running(tmp_path) == {}


@pytest.mark.parametrize(
    ("test", "group"),
    [
        ("tests/e2e/test_path.py::test_one[a::b]", "e2e/test_path.py"),
        ("tests/e2e/test_documents.py::test_page[README.md]", "tests/e2e/test_documents.py::test_page[README.md]"),
        ("tests/integration/crds/test_crds.py::test_one", "integration/crds"),
        ("tests/contract/test_object_store.py::test_one[minio]", "contract"),
        ("tests/unit/test_tree.py::test_one", "unit/test_tree.py"),
    ],
)
def test_tests_with_the_same_servers_are_a_group(test: str, group: str) -> None:
    assert group_of(test) == group
