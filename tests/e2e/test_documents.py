"""Every command of README.md and docs/, as a reader types it: in the order of the page, in one shell, against a product
of its own.

Nothing is left out silently: what cannot be run here is in `ELSEWHERE`, and an entry that no page has any more fails.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import metadata
from pathlib import Path

import pytest

from taskflow_local.programs import default_cache
from taskflow_local.stack import Stack
from tests.documents import CLUSTER_PAGES, ROOT, Command, blocks, code, commands, pages, run_code, shell_blocks

pytestmark = pytest.mark.e2e

ELSEWHERE = {
    "make test": "runs this test",
    "pip install 'taskflow-operator[local]'": "the package under test is installed already",
}
"""Commands that are not run, and why."""
ENDLESS = {"taskflow-local logs operator -f": "leading"}
"""Commands that a reader ends by hand, and what they print before."""
STACK_SECONDS = 240
"""What a reader needs for one stack, from `up` to `down`; a page may have several."""
AGE = re.compile(r"\b(?:\d+[dhms])+\b")
MARK = "@@ "


@dataclass(frozen=True)
class Ran:
    """What became of a command."""

    command: Command
    code: int
    output: str


@pytest.fixture
def home() -> Iterator[Path]:
    """Home and working folder of a reader, whose stack is gone when the test ends."""
    # Not pytest's own folder: PostgreSQL, which root cannot run, has to pass through.
    folder = Path(tempfile.mkdtemp(prefix="taskflow-docs-"))
    folder.chmod(0o711)
    for name in (".venv", "examples"):
        (folder / name).symlink_to(ROOT / name)
    try:
        yield folder
    finally:
        # The demonstration has a stack beside it, which it leaves when something is wrong with it.
        for stack in (Stack(state(folder)), Stack(state(folder).with_name("demo"))):
            if stack.exists():
                stack.delete(lambda _: None)
        shutil.rmtree(folder)


def state(home: Path) -> Path:
    return home / ".local/state/taskflow/default"


def environment(home: Path) -> dict[str, str]:
    """A reader's: nothing of this test's own, but where programs are."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS", "PYTHONPATH"))}
    return kept | {
        "HOME": str(home),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "XDG_CACHE_HOME": str(default_cache(os.environ).parents[1]),
        # Root's would be a folder of the machine.
        "TASKFLOW_LOCAL_STATE": str(state(home)),
    }


def script(typed: list[Command]) -> str:
    """The commands one after the other in one shell, each with a line before it and one after it."""
    # As if the reader stood in the repository; `make` alone needs more of it than a few links.
    lines = [f'make() {{ command make -C "{ROOT}" "$@"; }}']
    for number, command in enumerate(typed):
        text = command.words
        if text in ENDLESS:
            # Whoever follows ends when nobody reads any more.
            text = f"{text} | grep --max-count=1 '{ENDLESS[text]}'"
        lines += [f"echo '{MARK}{number}'", text, f'ended=$?; echo; echo "{MARK}$ended after $SECONDS s"']
    return "\n".join(lines) + "\n"


def run_in_a_shell(typed: list[Command], home: Path) -> list[Ran]:
    source = home / "typed.sh"
    source.write_text(script(typed))
    # Into a file: what the commands leave running would keep a pipe open.
    stacks = sum(command.words.startswith("taskflow-local up") for command in typed)
    limit = STACK_SECONDS * max(1, stacks)
    ended_itself = True
    with (home / "typed.out").open("w+") as output:
        try:
            subprocess.run(
                ["bash", str(source)],
                cwd=home,
                env=environment(home),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=limit,
                check=False,
            )
        except subprocess.TimeoutExpired:
            ended_itself = False
        output.seek(0)
        text = output.read()
    assert ended_itself, f"the shell did not end within {limit} s; it said:\n{text}"
    found = []
    for number, command in enumerate(typed):
        ended = re.search(rf"^{MARK}{number}\n(.*?)\n^{MARK}(\d+) after \d+ s$", text, re.MULTILINE | re.DOTALL)
        assert ended, f"{command.words}: did not end; the shell said:\n{text}"
        found.append(Ran(command, int(ended[2]), ended[1]))
        text = text[ended.end() :]
    return found


def test_one_shell_runs_all_commands_and_a_failure_is_seen(home: Path) -> None:
    typed = ["export SAID=tea   # for the next", "echo $SAID; false", "no-such-program", "echo on"]
    found = run_in_a_shell([Command(text, "") for text in typed], home)
    assert [ran.code for ran in found] == [0, 1, 127, 0]
    assert [found[1].output, found[3].output] == ["tea\n", "on\n"]


def without_ages(text: str) -> list[list[str]]:
    """Words of each line; a duration is any duration."""
    return [AGE.sub("AGE", line).split() for line in text.strip().splitlines()]


@pytest.mark.parametrize("page", [page for page in pages() if shell_blocks(page) and page not in CLUSTER_PAGES])
def test_the_commands_of_a_page_do_what_it_says(page: str, home: Path) -> None:
    for block in blocks(page):
        if block.saved_as:
            (home / block.saved_as).write_text(block.text)
    typed = [command for block in shell_blocks(page) for command in commands(block) if command.words not in ELSEWHERE]
    assert typed
    for ran in run_in_a_shell(typed, home):
        words = ran.command.words
        assert ran.code == 0, f"{page}: {words}: exit code {ran.code}\n{ran.output}"
        if ran.command.shown:
            assert without_ages(ran.output) == without_ages(ran.command.shown), f"{page}: {words}"


def test_what_is_not_run_is_written_somewhere_and_is_there() -> None:
    written = {command.words for page in pages() for block in shell_blocks(page) for command in commands(block)}
    assert {*ELSEWHERE, *ENDLESS} <= written
    targets = re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    extras = metadata("taskflow-operator").get_all("Provides-Extra") or []
    for words in ELSEWHERE:
        if words.startswith("make "):
            assert words.removeprefix("make ") in targets
        else:
            wanted = re.fullmatch(r"pip install 'taskflow-operator\[(\w+)\]'", words)
            assert wanted is not None
            assert wanted[1] in extras


def test_the_python_of_local_mode_works(home: Path) -> None:
    _, in_tests = code("docs/local-mode.md")
    run_code(in_tests, {"tmp_path": state(home)})
