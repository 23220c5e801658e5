import pytest

from taskflow_core.errors import Dependency, TaskflowError, Unavailable
from taskflow_operator.history.schema import SchemaKeeper

AWAY = Unavailable("history database: connection refused", Dependency.POSTGRES)


class Database:
    """A database with a revision, or none, or that fails."""

    def __init__(self, revision: str | None) -> None:
        self.found: str | None = revision
        self.error: TaskflowError | None = None
        self.made = 0
        self.asked = 0
        self.keeper = SchemaKeeper(self._revision, self._ensure, self._made)

    async def _revision(self) -> str | None:
        if self.error is not None:
            raise self.error
        return self.found

    def _ensure(self) -> None:
        self.asked += 1
        self.found = self.found or "head"

    def becomes(self, revision: str | None) -> None:
        self.found = revision

    def _made(self) -> None:
        self.made += 1


async def test_a_schema_that_is_there_is_looked_at_once_and_never_made() -> None:
    database = Database("head")
    for _ in range(3):
        await database.keeper.check()
    assert (database.asked, database.made) == (1, 0)


async def test_a_schema_that_was_lost_is_made_and_what_is_there_is_mirrored_again() -> None:
    database = Database("head")
    await database.keeper.check()
    database.becomes(None)
    for _ in range(3):
        await database.keeper.check()
    assert (database.found, database.asked, database.made) == ("head", 2, 1)


async def test_an_older_schema_is_brought_up_and_its_history_kept() -> None:
    database = Database("head")
    await database.keeper.check()
    database.becomes("before")
    await database.keeper.check()
    assert (database.asked, database.made) == (2, 0)


@pytest.mark.parametrize("error", [AWAY, TaskflowError("history database refused a statement (42501): denied")])
async def test_a_database_that_fails_is_asked_again_at_the_next_check(error: TaskflowError) -> None:
    database = Database(None)
    database.error = error
    await database.keeper.check()
    assert database.made == 0
    database.error = None
    await database.keeper.check()
    assert database.made == 1
