import tempfile
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from taskflow_core.blobs.store import ObjectStore
from taskflow_core.settings import StorageSettings
from taskflow_local.stack import Stack


@pytest.fixture(scope="package", params=["minio", "versitygw"])
def server(request: pytest.FixtureRequest) -> Iterator[Stack]:
    with tempfile.TemporaryDirectory(prefix="taskflow-") as folder:
        stack = Stack(Path(folder) / "state", components=(request.param,))
        try:
            stack.up()
            yield stack
        finally:
            stack.down()


@pytest.fixture
def settings(server: Stack) -> StorageSettings:
    prefix = "TASKFLOW_S3_"
    found = {
        name.removeprefix(prefix).lower(): value for name, value in server.env().items() if name.startswith(prefix)
    }
    return StorageSettings.model_validate(found)


@pytest.fixture
def store(settings: StorageSettings) -> ObjectStore:
    return ObjectStore(settings)


@pytest.fixture
def folder(store: ObjectStore) -> Iterator[str]:
    """A prefix of the test's own."""
    prefix = f"{uuid4()}/"
    yield prefix
    store.delete_prefix(prefix)
