from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from taskflow_worker.readiness import STALE_SECONDS, Mark, path, problem


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))


def test_a_worker_is_ready_while_it_marks_itself() -> None:
    mark, now = Mark("w"), time.time()
    assert "has not begun" in (problem("w", now) or "")
    mark.ready()
    assert problem("w", time.time()) is None
    assert "has not begun" in (problem("other", now) or "")
    assert "has not reported for" in (problem("w", time.time() + STALE_SECONDS + 1) or "")
    mark.not_ready("Redis: gone")
    assert problem("w", time.time()) == "Redis: gone"
    mark.ready()
    assert problem("w", time.time()) is None
    mark.remove()
    assert "has not begun" in (problem("w", now) or "")


def test_a_mark_is_renewed_without_being_written_again() -> None:
    mark = Mark("w")
    mark.ready()
    os.utime(path("w"), (1, 1))
    mark.ready()
    assert problem("w", time.time()) is None


def test_no_link_of_somebody_else_is_followed(tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.write_text("kept")
    Path(path("w")).symlink_to(target)
    Mark("w").not_ready("why")
    assert target.read_text() == "kept"


def test_a_folder_that_takes_nothing_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", "/nowhere")
    Mark("w").ready()
    assert problem("w", time.time()) is not None


@pytest.mark.parametrize(("why", "code"), [("", 0), ("Redis: gone", 1)])
def test_the_probe_prints_why_and_imports_nothing_of_the_worker(why: str, code: int) -> None:
    Mark("w").not_ready(why)
    program = (
        "import sys, runpy; sys.argv = ['x']\ntry: runpy.run_module('taskflow_worker.readiness', run_name='__main__')"
    )
    program += "\nexcept SystemExit as end: print('pydantic' in sys.modules, end.code)"
    environment = os.environ | {"TASKFLOW_WORKER_NAME": "w"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == (f"{why}\n" if why else "") + f"False {code}\n"
