from pathlib import Path

import pytest

from taskflow_local import gobuild
from taskflow_local.catalogue import PROGRAMS
from taskflow_local.errors import ProgramMissingError

pytestmark = pytest.mark.integration

WORKS = """\
#!/bin/sh
if [ "$1" = env ]; then echo go1.26.9; exit; fi
while [ "$1" != -o ]; do shift; done
echo "CGO_ENABLED=$CGO_ENABLED GOFLAGS=$GOFLAGS in $(basename "$PWD") builds $3" > "$2"
chmod +x "$2"
"""
FAILS = """\
#!/bin/sh
if [ "$1" = env ]; then echo go1.26.9; exit; fi
echo "missing go.sum entry for module" >&2
exit 1
"""


def put_go(folder: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a program named go in front on PATH."""
    folder.mkdir()
    (folder / "go").write_text(text)
    (folder / "go").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_a_build_is_reproducible_uses_the_pinned_module_and_appears_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_go(tmp_path / "bin", WORKS, monkeypatch)
    said: list[str] = []
    gobuild.build(PROGRAMS["minio"], tmp_path / "minio-1", tmp_path, said.append)
    text = (tmp_path / "minio-1").read_text()
    assert text == "CGO_ENABLED=0 GOFLAGS=-mod=readonly in minio builds github.com/minio/minio\n"
    assert "usually 2 to 4 minutes" in said[0]
    assert not list(tmp_path.glob(".*part"))


def test_a_failed_build_shows_the_end_of_its_log_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_go(tmp_path / "bin", FAILS, monkeypatch)
    with pytest.raises(ProgramMissingError, match=r"building etcd failed .*\n.*missing go\.sum entry"):
        gobuild.build(PROGRAMS["etcd"], tmp_path / "etcd-1", tmp_path, print)
    assert not (tmp_path / "etcd-1").exists()
