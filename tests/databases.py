"""Databases for tests, each a copy: a copy takes a few hundredths of a second, the migrations take a second."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

import psycopg
from psycopg import sql
from pydantic import SecretStr
from sqlalchemy import NullPool, create_engine, make_url

from taskflow_core.settings import DatabaseSettings
from taskflow_core.store.migrate import migrate
from taskflow_local.stack import Stack

_OWNER, _EMPTY, _MIGRATED = "taskflow", "template1", "migrated"


class Databases:
    """Makes databases on the PostgreSQL of a stack; the migrations run once."""

    def __init__(self, stack: Stack) -> None:
        self._url = make_url(stack.env()["TASKFLOW_DATABASE_URL"])
        self._password = stack.folder.load().postgres_admin_password
        self._numbers = count()
        # A crash of the machine would end the tests too.
        for setting in ("fsync", "full_page_writes", "synchronous_commit"):
            self._run(sql.SQL("ALTER SYSTEM SET {} = off").format(sql.Identifier(setting)))
        self._run(sql.SQL("SELECT pg_reload_conf()"))
        self._copy(_EMPTY, _MIGRATED)
        migrate(create_engine(self._settings(_MIGRATED).url.get_secret_value(), poolclass=NullPool))

    @contextmanager
    def empty(self) -> Iterator[DatabaseSettings]:
        """A database without a schema, for as long as the block runs."""
        with self._temporary(_EMPTY) as made:
            yield made

    @contextmanager
    def migrated(self) -> Iterator[DatabaseSettings]:
        """A database with the schema of the migrations and no row, for as long as the block runs."""
        with self._temporary(_MIGRATED) as made:
            yield made

    @contextmanager
    def _temporary(self, template: str) -> Iterator[DatabaseSettings]:
        name = f"test_{next(self._numbers)}"
        self._copy(template, name)
        try:
            yield self._settings(name)
        finally:
            self._run(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))

    def _copy(self, template: str, name: str) -> None:
        names = [sql.Identifier(each) for each in (name, _OWNER, template)]
        self._run(sql.SQL("CREATE DATABASE {} OWNER {} TEMPLATE {}").format(*names))

    def _settings(self, name: str) -> DatabaseSettings:
        url = self._url.set(database=name).render_as_string(hide_password=False)
        return DatabaseSettings(url=SecretStr(url))

    def _run(self, statement: sql.SQL | sql.Composed) -> None:
        with psycopg.connect(
            host=self._url.host,
            port=self._url.port,
            user="postgres",
            password=self._password,
            dbname="postgres",
            autocommit=True,
        ) as connection:
            connection.execute(statement)
