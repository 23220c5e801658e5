from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import SecretStr

from taskflow_core.blobs.store import ObjectStore
from taskflow_core.errors import TaskflowError
from taskflow_core.settings import StorageSettings
from taskflow_local import pki
from taskflow_local.programs import Resolver
from tests.e2e.product import eventually

BUCKET, ADMINISTRATOR, PASSWORD = "files", "administrator", "a-password-of-minio"


@pytest.fixture(scope="package")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority of nobody else (`ca.crt`), and a certificate of it for localhost and 127.0.0.1."""
    folder = tmp_path_factory.mktemp("authority")
    pki.create(folder, datetime.now(UTC))
    return folder


@dataclass
class Minio:
    """A MinIO that serves TLS only."""

    port: int
    ca: str

    def settings(self, host: str = "localhost", ca: str | None = None) -> StorageSettings:
        return StorageSettings(
            endpoint=f"https://{host}:{self.port}",
            bucket=BUCKET,
            access_key=SecretStr(ADMINISTRATOR),
            secret_key=SecretStr(PASSWORD),
            ca=self.ca if ca is None else ca,
        )


@pytest.fixture(scope="package")
def minio(authority: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Minio]:
    folder = tmp_path_factory.mktemp("minio")
    certificates, data = folder / "certificates", folder / "data"
    certificates.mkdir()
    # A folder of MinIO's data is a bucket.
    (data / BUCKET).mkdir(parents=True)
    shutil.copy(authority / "server.crt", certificates / "public.crt")
    shutil.copy(authority / "server.key", certificates / "private.key")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {"MINIO_ROOT_USER": ADMINISTRATOR, "MINIO_ROOT_PASSWORD": PASSWORD, "MINIO_BROWSER": "off"}
    address = f"127.0.0.1:{port}"
    process = subprocess.Popen(
        [Resolver().resolve("minio"), "server", "--quiet", "--address", address, "--certs-dir", certificates, data],
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
    )
    made = Minio(port, (authority / "ca.crt").read_text())
    try:
        eventually(lambda: answers(made.settings()), bool, 60)
        yield made
    finally:
        process.terminate()
        process.wait()


def answers(settings: StorageSettings) -> bool:
    try:
        ObjectStore(settings).check()
    except TaskflowError:
        return False
    return True
