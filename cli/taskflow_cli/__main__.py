"""Runs `taskflow` or `kubectl taskflow`: errors become lines on stderr and exit codes."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from taskflow_cli.errors import CliError, Exit, lines_of
from taskflow_cli.options import Surroundings, say
from taskflow_cli.program import prepared, program


def main(argv: Sequence[str] | None = None, surroundings: Surroundings | None = None) -> int:
    """Run one command; returns the exit code."""
    called = "kubectl taskflow" if Path(sys.argv[0]).name.startswith("kubectl") else "taskflow"
    try:
        code = program.main(argv, called, **prepared(obj=surroundings or Surroundings()))
        sys.stdout.flush()
    except CliError as error:
        for line in lines_of(error):
            say(line)
        return error.code
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return Exit.USAGE
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        say("error: interrupted")
        return Exit.INTERRUPTED
    except BrokenPipeError:
        # Whoever read stdout has seen enough. At its end Python would complain about what it cannot flush.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.ERROR
    return code if isinstance(code, int) else Exit.OK


if __name__ == "__main__":
    sys.exit(main())
