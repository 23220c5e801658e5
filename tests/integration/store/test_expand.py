"""A step of the schema only adds: the version of the code before it goes on reading and writing, as a rollback of the
chart asks.
"""

from __future__ import annotations

from io import StringIO

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, NullPool, create_engine, text

from taskflow_core import resources
from taskflow_core.settings import DatabaseSettings
from taskflow_core.store.migrate import migrate

pytestmark = pytest.mark.integration

_COLUMNS = text("""
    SELECT table_name, column_name, data_type, is_nullable = 'YES', column_default IS NOT NULL OR is_identity = 'YES'
    FROM information_schema.columns WHERE table_schema = 'public' AND table_name <> 'alembic_version'
""")
# Whatever can refuse a row: constraints but those of NOT NULL, which is asked of the columns, and unique indexes.
_RULES = text("""
    SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint
        WHERE connamespace = 'public'::regnamespace AND contype <> 'n' AND conrelid <> 0
    UNION ALL SELECT indrelid::regclass::text, indexrelid::regclass::text, pg_get_indexdef(indexrelid) FROM pg_index
        JOIN pg_class ON pg_class.oid = indrelid WHERE indisunique AND relnamespace = 'public'::regnamespace
""")
Column = tuple[str, bool, bool]
"""Type, whether it may be NULL, whether it has a value if none is given."""
Schema = tuple[dict[tuple[str, str], Column], set[tuple[str, str, str]]]


def schema(engine: Engine) -> Schema:
    with engine.connect() as connection:
        columns = {(row[0], row[1]): (row[2], row[3], row[4]) for row in connection.execute(_COLUMNS)}
        return columns, {(row[0], row[1], row[2]) for row in connection.execute(_RULES)}


def broken(before: Schema, after: Schema) -> list[str]:
    """What code that knows the schema before would stumble over in the one after."""
    (old, old_rules), (new, new_rules) = before, after
    tables = {table for table, _ in old}
    found = []
    for (table, name), (kind, nullable, _) in old.items():
        if (now := new.get((table, name))) is None:
            found.append(f"{table}.{name} is gone")
        elif now[0] != kind:
            found.append(f"{table}.{name} was {kind} and is {now[0]}")
        elif nullable and not now[1]:
            found.append(f"{table}.{name} may no longer be NULL")
    for (table, name), (_, nullable, filled) in new.items():
        if table in tables and (table, name) not in old and not nullable and not filled:
            found.append(f"{table}.{name} is new and has to be given")
    found += [f"{table}: new rule {rule}" for table, _, rule in new_rules - old_rules if table in tables]
    return sorted(found)


def steps() -> list[str]:
    config = Config(stdout=StringIO())
    config.set_main_option("script_location", str(resources.path("migrations")))
    config.set_main_option("path_separator", "os")
    return [step.revision for step in ScriptDirectory.from_config(config).walk_revisions()][::-1]


def test_code_of_the_version_before_a_step_runs_after_it(database: DatabaseSettings) -> None:
    engine = create_engine(database.url.get_secret_value(), poolclass=NullPool)
    first, *later = steps()
    migrate(engine, "upgrade", first)
    assert len(later) > 3
    for step in later:
        before = schema(engine)
        migrate(engine, "upgrade", step)
        assert broken(before, schema(engine)) == [], step


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("ALTER TABLE tasks DROP COLUMN handler", "tasks.handler is gone"),
        ("ALTER TABLE tasks RENAME COLUMN handler TO runs", "tasks.handler is gone"),
        ("ALTER TABLE tasks ALTER COLUMN handler TYPE varchar(9)", "tasks.handler was text and is character varying"),
        ("ALTER TABLE tasks ALTER COLUMN finished_at SET NOT NULL", "tasks.finished_at may no longer be NULL"),
        ("ALTER TABLE tasks ADD COLUMN team text NOT NULL", "tasks.team is new and has to be given"),
        ("ALTER TABLE tasks ADD CHECK (handler <> '')", "tasks: new rule CHECK"),
        ("CREATE UNIQUE INDEX one ON tasks (handler)", "tasks: new rule CREATE UNIQUE INDEX"),
    ],
)
def test_a_step_that_takes_something_away_is_found(database: DatabaseSettings, change: str, expected: str) -> None:
    engine = create_engine(database.url.get_secret_value(), poolclass=NullPool)
    migrate(engine)
    before = schema(engine)
    with engine.begin() as connection:
        connection.execute(text(change))
    (found, *_) = broken(before, schema(engine))
    assert found.startswith(expected)


def test_a_step_that_adds_is_not(database: DatabaseSettings) -> None:
    engine = create_engine(database.url.get_secret_value(), poolclass=NullPool)
    migrate(engine)
    before = schema(engine)
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE tasks ADD COLUMN team text NOT NULL DEFAULT '', ADD COLUMN note text"))
        connection.execute(text("CREATE TABLE teams (name text PRIMARY KEY)"))
    assert broken(before, schema(engine)) == []
