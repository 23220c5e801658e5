"""`python -m taskflow_core.store.migrate [--patience S] [upgrade [REV] | downgrade REV | current | wait | ensure]`: the
schema of the history.

Exit codes: 0 done; 1 the database does not answer or is locked, so try again; 2 the call or the settings are wrong;
3 the database refused the change; 143 it was stopped by SIGTERM.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from io import StringIO

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Engine, NullPool, create_engine

from taskflow_core import resources
from taskflow_core.end_on_sigterm import end_on_sigterm
from taskflow_core.errors import Dependency, Invalid, TaskflowError, Unavailable
from taskflow_core.settings import UNUSABLE, DatabaseSettings, explain
from taskflow_core.store.engine import CONNECT_SECONDS, database_errors, engine_url, log_in_anew

ADVISORY_LOCK = 0x7461736B666C6F77
"""Key of the lock that all migrators of this schema take; the bytes of "taskflow"."""
APPLICATION_NAME = "taskflow-migrate"
DONE, RETRY, USAGE, REFUSED = 0, 1, 2, 3
_PAUSE_SECONDS = 1.0


def migrate(engine: Engine, action: str = "upgrade", revision: str = "head") -> str:
    """Run `upgrade`, `downgrade` or `current`; what Alembic printed.

    Raises:
        Unavailable: the database does not answer, or another session held a lock for too long.
        CommandError: there is no such revision.
    """
    output = StringIO()
    config = _config(output)
    with database_errors(), engine.connect() as connection:
        config.attributes["connection"] = connection
        if action == "current":
            command.current(config)
        elif action == "downgrade":
            command.downgrade(config, revision)
        else:
            command.upgrade(config, revision)
    return output.getvalue()


def check_schema(engine: Engine) -> str:
    """Nothing to print, when this version of the code can run on the schema: it has every step that we know, or is of a
    newer version.

    Raises:
        Unavailable: it is older, or the database does not answer.
    """
    steps = ScriptDirectory.from_config(_config(StringIO()))
    with database_errors(), engine.connect() as connection:
        found = MigrationContext.configure(connection).get_current_revision()
    head = steps.get_current_head()
    # One that we have never heard of is newer: steps only ever add, so what ran before runs on it.
    older = found is None or (found != head and found in {step.revision for step in steps.walk_revisions()})
    if older:
        raise Unavailable(
            f"history database: schema {found or 'none'}, needed {head}; waiting for the migration", Dependency.POSTGRES
        )
    return ""


def ensure_schema(engine: Engine) -> str:
    """Bring the schema up if this version of the code cannot run on it; nothing to print otherwise.

    Any number of programs may do so at once: one makes it, the others wait for that.

    Raises:
        Unavailable: the database does not answer, or another session held a lock for too long.
    """
    try:
        return check_schema(engine)
    except Unavailable:
        return migrate(engine)


def _config(output: StringIO) -> Config:
    config = Config(stdout=output, output_buffer=output)
    config.set_main_option("script_location", str(resources.path("migrations")).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def retry_until_available(
    act: Callable[[], str],
    seconds: float,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> str:
    """Try again each second for so long, while the database does not answer; says each new reason on stderr.

    Raises:
        Unavailable: still not, after that time.
    """
    deadline, said = clock() + seconds, ""
    while True:
        try:
            return act()
        except Unavailable as error:
            if clock() >= deadline:
                raise
            if str(error) != said:
                said = str(error)
                print(f"migrate: {said}", file=sys.stderr, flush=True)  # noqa: T201 - a command line prints
        sleep(_PAUSE_SECONDS)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m taskflow_core.store.migrate", description=__doc__)
    parser.add_argument(
        "--patience", type=float, default=0, metavar="SECONDS", help="how long to try again when it does not answer"
    )
    actions = parser.add_subparsers(dest="action")
    actions.add_parser("upgrade", help="bring the schema up (the default)").add_argument(
        "revision", nargs="?", default="head"
    )
    actions.add_parser("downgrade", help="bring the schema down; drops data").add_argument("revision")
    actions.add_parser("current", help="say which revision the database has")
    actions.add_parser("wait", help="end well once the schema is new enough for this version")
    actions.add_parser("ensure", help="bring the schema up unless it is new enough for this version")
    chosen = parser.parse_args(arguments)
    end_on_sigterm()
    try:
        engine = connect(DatabaseSettings())
        action, revision = chosen.action or "upgrade", getattr(chosen, "revision", "head")

        def act() -> str:
            if action in ("wait", "ensure"):
                return check_schema(engine) if action == "wait" else ensure_schema(engine)
            return migrate(engine, action, revision)

        print(retry_until_available(act, chosen.patience), end="")  # noqa: T201 - a command line prints
    except UNUSABLE as error:
        return _fail(USAGE, *explain(error))
    except (CommandError, Invalid) as error:
        return _fail(USAGE, str(error))
    except Unavailable as error:
        return _fail(RETRY, str(error))
    except TaskflowError as error:
        return _fail(REFUSED, str(error))
    return DONE


def connect(settings: DatabaseSettings) -> Engine:
    """For the functions of this module: a connection for each call, without a limit on the time of a statement.

    Raises:
        Invalid: an option of the URL is none of libpq.
    """
    engine = create_engine(
        engine_url(settings),
        poolclass=NullPool,
        hide_parameters=True,
        connect_args={"connect_timeout": CONNECT_SECONDS, "application_name": APPLICATION_NAME},
    )
    log_in_anew(engine, settings)
    return engine


def _fail(code: int, *lines: str) -> int:
    print(*(f"migrate: {line}" for line in lines), sep="\n", file=sys.stderr)  # noqa: T201 - a command line prints
    return code


if __name__ == "__main__":
    sys.exit(main())
