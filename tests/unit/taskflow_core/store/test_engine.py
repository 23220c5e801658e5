import pytest
from pydantic import SecretStr

from taskflow_core.errors import Invalid
from taskflow_core.settings import DatabaseSettings
from taskflow_core.store.engine import create_engine


@pytest.mark.parametrize("url", ["", "nonsense", "mysql://u:hunter2@h/db", "postgresql://u:hunter2@h/db"])
def test_a_url_that_is_none_of_postgresql_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(Invalid, match=r"TASKFLOW_DATABASE_URL: expected postgresql\+psycopg://") as caught:
        create_engine(DatabaseSettings(url=SecretStr(url)), application_name="test")
    assert "hunter2" not in str(caught.value)
