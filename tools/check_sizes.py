"""Fails if a module has more than 400 lines or a function more than 60. There are no exemptions."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = (
    "core",
    "operator",
    "api",
    "worker",
    "provisioner",
    "local",
    "client",
    "cli",
    "tools",
    "tests",
    "migrations",
    "examples",
    "bench",
)
MODULE_LINES = 400
FUNCTION_LINES = 60


def problems(path: Path) -> list[str]:
    """The violations in one module."""
    text = path.read_text()
    name = path.relative_to(ROOT)
    found: list[str] = []
    lines = text.count("\n")
    if lines > MODULE_LINES:
        found.append(f"{name}: {lines} lines, the limit is {MODULE_LINES}")
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > FUNCTION_LINES:
                found.append(f"{name}:{node.lineno}: {node.name} has {length} lines, the limit is {FUNCTION_LINES}")
    return found


def main() -> int:
    """Check all modules; 1 if there is a violation."""
    modules = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
    found = [problem for path in modules for problem in problems(path)]
    print(*(found or [f"{len(modules)} modules are small enough"]), sep="\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
