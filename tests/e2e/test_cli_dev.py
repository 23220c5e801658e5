"""The development loop: `taskflow dev mine.py`, from nothing to a result, a save, and the end."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from taskflow_local.stack import Stack
from tests.e2e.product import eventually

pytestmark = pytest.mark.e2e
TASKFLOW = str(Path(sys.executable).with_name("taskflow"))
RELOAD_SECONDS = 120
"""Workers start slowly on a busy machine."""
MINE = """
from taskflow_worker.sdk import handler

@handler("mine.word")
def word(name: str) -> str:
    print("asked by", name)
    return "{word}"
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    # Not pytest's own folder: PostgreSQL, which root cannot run, has to pass through.
    made = Path(tempfile.mkdtemp(prefix="taskflow-dev-"))
    made.chmod(0o711)
    try:
        yield made
    finally:
        stack = Stack(made / "state")
        if stack.exists():
            stack.delete(lambda _: None)
        shutil.rmtree(made)


def write(path: Path, text: str) -> None:
    part = path.with_suffix(".part")
    part.write_text(text)
    part.replace(path)


@pytest.mark.timeout(900)
def test_handlers_run_are_reloaded_at_a_save_and_nothing_is_left_running(folder: Path) -> None:
    mine, state = folder / "mine.py", ["--state", str(folder / "state")]

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [TASKFLOW, "dev", "run", "mine.word", *arguments, *state], capture_output=True, text=True, check=False
        )

    done = run("-p", "name=me")
    assert (done.returncode, done.stdout) == (7, "")
    assert done.stderr.startswith("error: local mode does not run\nhint: start it with: taskflow dev FILE")

    write(mine, MINE.format(word="first"))
    with (
        (folder / "out").open("w") as out,
        subprocess.Popen(
            [TASKFLOW, "dev", str(mine), *state],
            stdout=out,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            # Ignored, if these tests run in the background.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - no threads here
        ) as process,
    ):
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("ready; run one of them with: taskflow dev run HANDLER"):
                break
        else:
            raise AssertionError("it ended before it was ready")
        done = run("-p", "name=me")
        assert (done.returncode, done.stdout.endswith(': "first"\n')) == (0, True)
        assert done.stderr.endswith(" stdout asked by me\n")
        shown = eventually((folder / "out").read_text, lambda text: "succeeded" in text)
        assert [line.split(" ", 1)[1].split()[-1] for line in shown.splitlines()] == ["me", '"first"']

        write(mine, MINE.format(word="second"))
        eventually(lambda: run("-p", "name=me").stdout, lambda text: text.endswith('"second"\n'), RELOAD_SECONDS)
        write(mine, MINE.format(word="third").replace("return", "raise ValueError(name) ;"))
        done = eventually(lambda: run("-p", "name=you"), lambda done: done.returncode == 10, RELOAD_SECONDS)
        assert "ValueError: you" in done.stderr

        process.send_signal(signal.SIGINT)
        said = process.stderr.read()
    assert process.returncode == 0
    assert said.startswith("stopping local mode\n")
    assert not any(row.running for row in Stack(folder / "state").status())


def test_files_that_cannot_be_imported_start_nothing_that_stays(folder: Path) -> None:
    (folder / "bad.py").write_text("x = (")
    done = subprocess.run(
        [TASKFLOW, "dev", str(folder / "bad.py"), "--state", str(folder / "state")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "SyntaxError" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: taskflow-local up failed: exit code 1")
    stack = Stack(folder / "state")
    assert not stack.exists() or not any(row.running for row in stack.status())
