import hashlib
import io
import tarfile
from pathlib import Path

import pytest

from taskflow_local import fetch
from taskflow_local.catalogue import PROGRAMS


def make_archive(name: str, content: bytes, folder: str = "controller-tools/envtest") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        info = tarfile.TarInfo(f"{folder}/{name}")
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def test_an_archive_with_another_checksum_is_refused(tmp_path: Path) -> None:
    with pytest.raises(fetch.ChecksumMismatchError, match="expected sha512 ea74"):
        fetch.fetch(PROGRAMS["etcd"], tmp_path / "etcd", "amd64", lambda _: make_archive("etcd", b"evil"))
    assert list(tmp_path.iterdir()) == []


def test_a_program_is_extracted_and_made_executable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = make_archive("etcd", b"program")
    monkeypatch.setitem(fetch._ENVTEST_SHA512, ("v1.36.2", "amd64"), hashlib.sha512(archive).hexdigest())
    fetch.fetch(PROGRAMS["etcd"], tmp_path / "etcd", "amd64", lambda _: archive)
    assert (tmp_path / "etcd").read_bytes() == b"program"
    assert (tmp_path / "etcd").stat().st_mode & 0o777 == 0o755
    assert [path.name for path in tmp_path.iterdir()] == ["etcd"]


def test_a_plain_download_is_checked_against_the_published_checksum(tmp_path: Path) -> None:
    asked = []

    def read(url: str) -> bytes:
        asked.append(url)
        return hashlib.sha256(b"program").hexdigest().encode() if url.endswith(".sha256") else b"program"

    target = tmp_path / "kcm"
    fetch.fetch(PROGRAMS["kube-controller-manager"], target, "arm64", read)
    assert target.read_bytes() == b"program"
    assert asked[1] == "https://dl.k8s.io/v1.36.2/bin/linux/arm64/kube-controller-manager"
    with pytest.raises(fetch.ChecksumMismatchError):
        fetch.fetch(
            PROGRAMS["kube-controller-manager"], target, "arm64", lambda url: b"0" if url.endswith("256") else b"x"
        )


def test_helm_is_extracted_from_an_archive_with_the_published_checksum(tmp_path: Path) -> None:
    archive = make_archive("helm", b"program", "linux-arm64")

    def read(url: str) -> bytes:
        return f"{hashlib.sha256(archive).hexdigest()}  helm.tar.gz".encode() if url.endswith("sum") else archive

    fetch.fetch(PROGRAMS["helm"], tmp_path / "helm", "arm64", read)
    assert (tmp_path / "helm").read_bytes() == b"program"
    with pytest.raises(fetch.ChecksumMismatchError):
        fetch.fetch(PROGRAMS["helm"], tmp_path / "helm", "arm64", lambda url: b"0" if url.endswith("sum") else archive)
