"""Official downloads: the envtest archive (pinned sha512), dl.k8s.io and get.helm.sh (published sha256)."""

import hashlib
import io
import platform
import shutil
import tarfile
import urllib.request
from collections.abc import Callable
from pathlib import Path

from taskflow_local.catalogue import Program
from taskflow_local.errors import LocalError

_CONNECT_SECONDS = 5
_ENVTEST = (
    "https://github.com/kubernetes-sigs/controller-tools/releases/download/envtest-{v}/envtest-{v}-linux-{a}.tar.gz"
)
_HELM = "https://get.helm.sh/helm-{v}-linux-{a}.tar.gz"
_PLAIN = "https://dl.k8s.io/{v}/bin/linux/{a}/{name}"
# From envtest-releases.yaml of kubernetes-sigs/controller-tools.
_ENVTEST_SHA512 = {
    ("v1.36.2", "amd64"): "ea743186c8a799f5cf8faf16969f86189d003cb7d130e0ac4b58789f1e5748dc"
    "f30ebe91c837a10d5ac415383da3e10b9e64d65785c938c23e739781cfb76f08",
    ("v1.36.2", "arm64"): "2d72ee985a8e262a3c57dc9f7f0fd891f6a8c7bf7ebaa2db6dc6d8eac8ae2818"
    "1afe51c1f368b67756cdb40b10de9b205609e1726e5f27f7c6d824dd9c6649ac",
}
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}

Read = Callable[[str], bytes]


class ChecksumMismatchError(LocalError):
    """The download does not match the pinned or published checksum. It is not used."""


def architecture() -> str | None:
    """This machine's architecture in Go's naming. None if upstream publishes nothing for it."""
    return _ARCHITECTURES.get(platform.machine())


def read_url(url: str) -> bytes:
    """Download a file. Raises OSError without network, within 5 seconds."""
    with urllib.request.urlopen(url, timeout=_CONNECT_SECONDS) as answer:  # noqa: S310 - constant https addresses
        return bytes(answer.read())


def fetch(program: Program, target: Path, arch: str, read: Read = read_url) -> None:
    """Download a program to `target`. Raises OSError without network, ChecksumMismatchError for a wrong file."""
    if program.download is None:
        raise ValueError(program.name)
    version = program.download.version
    if program.download.kind == "envtest":
        url = _ENVTEST.format(v=version, a=arch)
        content = _checked(url, read(url), "sha512", _ENVTEST_SHA512[version, arch])
        _install(_member(content, f"controller-tools/envtest/{program.name}", url), target)
        return
    if program.download.kind == "helm":
        url = _HELM.format(v=version, a=arch)
        published = read(url + ".sha256sum").decode().split()[0]
        content = _checked(url, read(url), "sha256", published)
        _install(_member(content, f"linux-{arch}/helm", url), target)
        return
    url = _PLAIN.format(v=version, a=arch, name=program.name)
    published = read(url + ".sha256").decode().split()[0]
    _install(_checked(url, read(url), "sha256", published), target)


def _member(archive: bytes, name: str, url: str) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        found = opened.extractfile(name)
        if found is None:
            raise LocalError(f"{url} holds no {name}")
        return found.read()


def _checked(url: str, content: bytes, algorithm: str, expected: str) -> bytes:
    found = hashlib.new(algorithm, content).hexdigest()
    if found != expected:
        raise ChecksumMismatchError(f"{url}: expected {algorithm} {expected}, found {found}; the file was not used")
    return content


def _install(content: bytes, target: Path) -> None:
    part = target.with_name(f".{target.name}.part")
    part.write_bytes(content)
    part.chmod(0o755)
    shutil.move(part, target)
