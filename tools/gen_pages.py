"""Writes the generated files: the pages of docs/reference, and parts of the chart.

With --check it writes nothing and fails if a file differs.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import gen_chart
import gen_cli
import gen_crds
import gen_dashboards
import gen_metrics
import gen_openapi
import gen_policies
import gen_problems
import gen_reference
import gen_settings

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "reference"


def main() -> int:
    """Write or check every file."""
    # The CRDs and policies first: pages and the chart are made from them.
    stale = [_write(gen_crds.files()), _write(gen_policies.files())]
    pages = gen_reference.pages() | gen_settings.pages() | gen_metrics.pages() | gen_problems.pages()
    pages |= gen_cli.pages()
    files = {FOLDER / f"{name}.md": text for name, text in pages.items()}
    files |= {FOLDER / name: text for name, text in gen_openapi.files().items()}
    stale.append(_write(files | gen_chart.files() | gen_dashboards.files()))
    return int(any(stale))


def _write(files: Mapping[Path, str]) -> bool:
    """Write the files; with --check, whether one of them is stale."""
    stale = False
    for path, text in files.items():
        if "--check" not in sys.argv[1:]:
            path.write_text(text)
        elif not path.exists() or path.read_text() != text:
            print(f"{path.relative_to(FOLDER.parent.parent)} is out of date; run make gen")
            stale = True
    return stale


if __name__ == "__main__":
    sys.exit(main())
