import os
import subprocess
import sys
import time

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, MetaData, NullPool, create_engine, inspect, text

from taskflow_api.identity.tables import accounts
from taskflow_api.webhooks.tables import deliveries
from taskflow_core.end_on_sigterm import STOPPED
from taskflow_core.errors import Unavailable
from taskflow_core.ledger.cache_versions import CacheVersions
from taskflow_core.settings import DatabaseSettings
from taskflow_core.store.migrate import ADVISORY_LOCK, APPLICATION_NAME, check_schema, ensure_schema, migrate
from taskflow_core.store.tables import metadata as of_the_history
from taskflow_operator.history.database import Database
from taskflow_operator.history.schema import SchemaKeeper

pytestmark = pytest.mark.integration
METADATA = MetaData(naming_convention=of_the_history.naming_convention)
for _table in (*of_the_history.sorted_tables, *{*accounts.metadata.sorted_tables, *deliveries.metadata.sorted_tables}):
    _table.to_metadata(METADATA)

# What compare_metadata does not look at: primary keys, constraints, order and expressions of indexes, defaults.
_CATALOGUE = text("""
    SELECT 'index', indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'
    UNION ALL SELECT 'constraint', conname, pg_get_constraintdef(oid) FROM pg_constraint
        WHERE connamespace = 'public'::regnamespace
    UNION ALL SELECT 'column', table_name || '.' || column_name,
        concat_ws(' ', ordinal_position, data_type, is_nullable, column_default)
        FROM information_schema.columns WHERE table_schema = 'public'
    ORDER BY 1, 2
""")

_WAITING = text("SELECT count(*) FROM pg_stat_activity WHERE application_name = :name AND wait_event = 'advisory'")


def _engine(database: DatabaseSettings) -> Engine:
    return create_engine(database.url.get_secret_value(), poolclass=NullPool)


def _waiting(database: DatabaseSettings) -> int:
    # A connection of its own each time: within a transaction the statistics stand still.
    with _engine(database).connect() as connection:
        return int(connection.execute(_WAITING, {"name": APPLICATION_NAME}).scalar_one())


def _catalogue(engine: Engine) -> list[tuple[str, ...]]:
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(_CATALOGUE) if "alembic_version" not in row[1] + row[2]]


def _command(database: DatabaseSettings | str, *arguments: str) -> subprocess.Popen[str]:
    url = database if isinstance(database, str) else database.url.get_secret_value()
    return subprocess.Popen(
        [sys.executable, "-m", "taskflow_core.store.migrate", *arguments],
        env=os.environ | {"TASKFLOW_DATABASE_URL": url},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_migrations_and_models_make_the_same_schema(database: DatabaseSettings) -> None:
    engine = _engine(database)
    migrate(engine)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), METADATA) == []
    migrated = _catalogue(engine)
    migrate(engine, "downgrade", "base")
    METADATA.create_all(engine)
    assert _catalogue(engine) == migrated
    assert len(migrated) > 60


def test_the_schema_goes_up_down_and_up_again(database: DatabaseSettings) -> None:
    engine = _engine(database)
    migrate(engine)
    first = _catalogue(engine)
    migrate(engine, "downgrade", "base")
    assert inspect(engine).get_table_names() == ["alembic_version"]
    migrate(engine)
    assert _catalogue(engine) == first
    assert "0012" in migrate(engine, "current")


def test_two_migrators_at_once_take_turns_and_both_succeed(database: DatabaseSettings) -> None:
    with _engine(database).begin() as holder:
        holder.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": ADVISORY_LOCK})
        both = [_command(database), _command(database)]
        # Released only when both have come as far as they can, so that they do meet.
        deadline = time.monotonic() + 30
        while _waiting(database) < 2:
            assert time.monotonic() < deadline, [process.poll() for process in both]
            time.sleep(0.05)
    answers = [process.communicate(timeout=60) for process in both]
    assert [process.returncode for process in both] == [0, 0], answers
    assert "tasks" in inspect(_engine(database)).get_table_names()


def test_a_table_that_somebody_holds_ends_the_migration_with_the_code_for_try_again(database: DatabaseSettings) -> None:
    migrate(_engine(database))
    with _engine(database).begin() as holder:
        holder.execute(text("LOCK TABLE timeline IN ACCESS SHARE MODE"))
        process = _command(database, "downgrade", "base")
        _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "lock timeout" in said
    assert "DROP TABLE" not in said


@pytest.mark.parametrize(
    ("url", "arguments", "code", "said"),
    [
        ("postgresql+psycopg://u:hunter2@127.0.0.1:1/db", (), 1, "Connection refused"),
        ("mysql://u:hunter2@127.0.0.1/db", (), 2, "expected postgresql+psycopg://"),
        (None, ("upgrade", "no-such"), 2, "no-such"),
    ],
)
def test_exit_codes_tell_try_again_from_a_wrong_call(
    database: DatabaseSettings, url: str | None, arguments: tuple[str, ...], code: int, said: str
) -> None:
    process = _command(database if url is None else url, *arguments)
    _, error = process.communicate(timeout=60)
    assert (process.returncode, said in error, "hunter2" in error) == (code, True, False)


def test_a_schema_that_is_missing_or_older_is_waited_for_and_a_newer_one_will_do(database: DatabaseSettings) -> None:
    engine = _engine(database)
    with pytest.raises(Unavailable, match="schema none, needed 0"):
        check_schema(engine)
    migrate(engine)
    check_schema(engine)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = 'of_the_future'"))
    check_schema(engine)


def test_a_pod_that_waits_goes_on_as_soon_as_the_migration_is_done(database: DatabaseSettings) -> None:
    waiting = _command(database, "--patience", "60", "wait")
    assert waiting.stderr is not None
    assert "waiting for the migration" in waiting.stderr.readline()
    migrate(_engine(database))
    assert waiting.wait(timeout=30) == 0
    waiting.communicate()


def test_waiting_ends_with_1_when_the_time_is_over(database: DatabaseSettings) -> None:
    waiting = _command(database, "--patience", "0", "wait")
    _, said = waiting.communicate(timeout=60)
    assert waiting.returncode == 1
    assert "schema none" in said


def test_pods_that_come_up_together_make_the_schema_once(database: DatabaseSettings) -> None:
    together = [_command(database, "--patience", "60", "ensure") for _ in range(3)]
    answers = [process.communicate(timeout=120) for process in together]
    assert [process.returncode for process in together] == [0, 0, 0], answers
    check_schema(_engine(database))


def test_a_newer_schema_is_left_as_it_is(database: DatabaseSettings) -> None:
    engine = _engine(database)
    migrate(engine)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = 'of_the_future'"))
    assert ensure_schema(engine) == ""


@pytest.mark.parametrize("action", ["wait", "ensure"])
def test_sigterm_ends_it_at_once(action: str) -> None:
    nowhere = DatabaseSettings.model_validate({"url": "postgresql+psycopg://u:p@127.0.0.1:1/db"})
    waiting = _command(nowhere, "--patience", "600", action)
    assert waiting.stderr is not None
    assert "Connection refused" in waiting.stderr.readline()
    waiting.terminate()
    assert waiting.wait(timeout=60) == STOPPED
    waiting.communicate()


async def test_the_operator_sees_that_the_schema_is_gone(database: DatabaseSettings) -> None:
    history = Database(database, CacheVersions(None))
    try:
        assert await history.revision() is None
        migrate(_engine(database))
        assert await history.revision() == "0012"
    finally:
        await history.close()


async def test_a_schema_that_the_database_loses_is_made_again_while_the_operator_runs(
    database: DatabaseSettings,
) -> None:
    history, engine = Database(database, CacheVersions(None)), _engine(database)
    lost: list[None] = []
    keeper = SchemaKeeper(history.revision, lambda: ensure_schema(engine), lambda: lost.append(None))
    migrate(engine)
    try:
        await keeper.check()
        assert lost == []
        with engine.begin() as connection:
            connection.execute(text("DROP SCHEMA public CASCADE"))
            connection.execute(text("CREATE SCHEMA public"))
        with pytest.raises(Unavailable):
            await history.stored(["uid"])
        await keeper.check()
        assert await history.stored(["uid"]) == set()
        assert lost == [None]
    finally:
        await history.close()
