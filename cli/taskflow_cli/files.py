"""Files that a command is given."""

from __future__ import annotations

import sys
from pathlib import Path

from taskflow_cli.errors import CliError, Exit


def read(file: str) -> str:
    """The text of a file; `-` is stdin.

    Raises:
        CliError: it cannot be read.
    """
    try:
        return sys.stdin.read() if file == "-" else Path(file).read_text("utf-8")
    except FileNotFoundError:
        raise CliError(f"{file} does not exist", code=Exit.NOT_FOUND) from None
    except UnicodeDecodeError:
        raise CliError(f"{file} is no text in UTF-8", code=Exit.INVALID) from None
    except OSError as error:
        raise CliError(f"cannot read {file}", error.strerror or str(error)) from None
