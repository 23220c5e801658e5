"""A URL that no library would read rightly ends each component at its start, whatever reads it first."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.integration
SECRET = "pa/s$word-of-nobody"
GOOD = {
    "TASKFLOW_REDIS_URL": "redis://127.0.0.1:9/0",
    "TASKFLOW_DATABASE_URL": "postgresql+psycopg://user:word@127.0.0.1:9/db",
    "TASKFLOW_S3_ENDPOINT": "http://127.0.0.1:9",
    "TASKFLOW_S3_BUCKET": "files",
    "TASKFLOW_S3_ACCESS_KEY": "key",
    "TASKFLOW_S3_SECRET_KEY": "secret",
    "TASKFLOW_TOKEN_KEY": "k" * 32,
    "TASKFLOW_WEBHOOKS_ENABLED": "true",
    "TASKFLOW_WORKER_NAMESPACE": "team-a",
    "TASKFLOW_WORKER_QUEUES": "default",
}
DATABASE = f"postgresql+psycopg://user:{SECRET}@host:5432/db"
BARE = SECRET.replace("/", "")
CASES: list[tuple[tuple[str, ...], str, str]] = [
    (("taskflow_operator",), "TASKFLOW_REDIS_URL", f"redis://user:{BARE}@host:port/0"),
    (("taskflow_worker",), "TASKFLOW_REDIS_URL", f"redis://user:{BARE}@host:6379/zero"),
    (("taskflow_api",), "TASKFLOW_S3_ENDPOINT", f"https://user:{SECRET}@host:9000"),
    (("taskflow_api", "notifier"), "TASKFLOW_DATABASE_URL", DATABASE),
    (("taskflow_api", "keys", "list", "--namespace", "team-a"), "TASKFLOW_DATABASE_URL", DATABASE),
    (("taskflow_provisioner",), "TASKFLOW_PROVISIONER_API_REDIS_URL", f"redis://user:{SECRET}@host:6379/0"),
    (("taskflow_core.store.migrate",), "TASKFLOW_DATABASE_URL", f"postgresql+psycopg://user:{BARE}@host:port/db"),
    (("taskflow_core.store.migrate", "wait"), "TASKFLOW_DATABASE_URL", DATABASE),
]
"""Each component, as it is started. That no URL is left out, `tests/unit/test_settings_of_urls.py` checks."""


@pytest.mark.parametrize(("arguments", "variable", "url"), CASES)
def test_a_bad_url_ends_the_component_with_2_and_is_not_shown(
    arguments: tuple[str, ...], variable: str, url: str
) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", *arguments],
        env={**os.environ, **GOOD, variable: url},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 2, ended.stderr
    (line,) = ended.stderr.splitlines()
    assert f"{variable}: expected " in line
    assert not any(part in line + ended.stdout for part in ("pa/s", "s$word", "of-nobody", "zero"))
