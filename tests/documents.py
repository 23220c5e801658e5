"""The documents as a reader takes them: their commands, files and Python, in the order of the page."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
SHELLS = ("console", "bash", "sh", "shell")
PROMPT = "$ "
CLUSTER_PAGES = ("docs/install.md",)
"""Their commands need a cluster that runs pods: tests/cluster/test_documents.py."""
_FENCE = re.compile(r"^```(\w*)\s*\n(.*?)^```\s*$", re.MULTILINE | re.DOTALL)
_SAVED = re.compile(r"(?:Save|save) (?:this|it) as `([^`]+)`[^`]*\Z")


@dataclass(frozen=True)
class Block:
    """What stands between two fences."""

    page: str
    line: int
    language: str
    text: str
    saved_as: str | None
    """The file that the words before it tell the reader to make of it."""


@dataclass(frozen=True)
class Command:
    """One command of a shell block, and the output that the page shows below it."""

    text: str
    shown: str

    @property
    def words(self) -> str:
        """Without the comment that explains it."""
        return re.sub(r"\s+#.*$", "", self.text, flags=re.MULTILINE).strip()


def pages() -> list[str]:
    """Every page that people read, relative to the root."""
    found = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("**/*.md"))]
    return [str(path.relative_to(ROOT)) for path in found]


def blocks(page: str, text: str | None = None) -> Iterator[Block]:
    """The fenced blocks of a page, in its order."""
    text = (ROOT / page).read_text() if text is None else text
    for found in _FENCE.finditer(text):
        before = text[: found.start()]
        saved = _SAVED.search(before[-200:])
        yield Block(page, before.count("\n") + 1, found[1], found[2], saved[1] if saved else None)


def commands(block: Block) -> list[Command]:
    """Commands of a shell block. Where one line has a prompt, the lines without one are output."""
    # A line that ends with a backslash goes on in the next.
    lines = re.sub(r"\\\n", "\\\n\0", block.text).replace("\n\0", "\0").splitlines()
    lines = [line.replace("\0", "\n") for line in lines]
    if not any(line.startswith(PROMPT) for line in lines):
        return [Command(line, "") for line in lines if line.strip() and not line.lstrip().startswith("#")]
    found: list[Command] = []
    for line in lines:
        if line.startswith(PROMPT):
            found.append(Command(line.removeprefix(PROMPT), ""))
        elif found:
            found[-1] = Command(found[-1].text, found[-1].shown + line + "\n")
    return found


def shell_blocks(page: str) -> list[Block]:
    """The blocks of a page that a reader types into a shell."""
    return [block for block in blocks(page) if block.language in SHELLS]


def code(page: str) -> list[Block]:
    """The Python blocks of a page."""
    return [block for block in blocks(page) if block.language == "python"]


def run_code(block: Block, names: dict[str, object]) -> None:
    """Run a Python block with these names, and add those that it defines."""
    # Its traceback points at the page.
    source = "\n" * block.line + block.text
    exec(compile(source, block.page, "exec", dont_inherit=True), names)
