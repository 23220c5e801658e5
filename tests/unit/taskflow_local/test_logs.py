from pathlib import Path

import pytest

from taskflow_local.node.logs import start_of_tail


@pytest.mark.parametrize(
    ("content", "lines", "tail"),
    [
        ("a\nb\nc\n", None, "a\nb\nc\n"),
        ("a\nb\nc\n", 2, "b\nc\n"),
        ("a\nb\nc", 2, "b\nc"),
        ("a\nb\n", 9, "a\nb\n"),
        ("a\nb\n", 0, ""),
        ("", 3, ""),
        ("\n\n", 1, "\n"),
    ],
)
def test_the_tail_starts_at_its_first_line(tmp_path: Path, content: str, lines: int | None, tail: str) -> None:
    path = tmp_path / "log"
    path.write_text(content)
    assert content[start_of_tail(path, lines) :] == tail
