"""A developer's own handlers: what a path means, what is told about it, and how workers find it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from taskflow_core import resources
from taskflow_local import handlers
from taskflow_local.errors import LocalError
from taskflow_local.node import reload
from taskflow_local.node.reload import Reloader

GREET = """
from taskflow_worker.sdk import handler
{more}
@handler("{name}")
def greet() -> str:
    return "hello"
"""


def write(path: Path, name: str = "mine.greet", more: str = "") -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(GREET.format(name=name, more=more))
    return path


def test_a_path_is_a_file_a_package_or_all_files_of_a_folder(tmp_path: Path) -> None:
    mine = write(tmp_path / "mine.py")
    write(tmp_path / "package/__init__.py")
    write(tmp_path / "folder/b.py")
    write(tmp_path / "folder/a.py")
    (tmp_path / "folder/not-a-module.py").touch()
    assert handlers.modules(mine) == (tmp_path, ("mine",))
    assert handlers.modules(tmp_path / "package") == (tmp_path, ("package",))
    assert handlers.modules(tmp_path / "folder") == (tmp_path / "folder", ("a", "b"))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("missing.py", "no such file or folder"),
        ("empty", "expected Python files with handlers, found none"),
        ("my-handlers.py", "expected a Python file that can be imported"),
        ("notes.txt", "expected a Python file that can be imported"),
    ],
)
def test_another_path_is_refused(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / "empty").mkdir()
    for file in ("my-handlers.py", "notes.txt"):
        (tmp_path / file).touch()
    with pytest.raises(LocalError, match=said):
        handlers.check([tmp_path / name], os.environ)


def test_what_is_imported_is_told_with_the_files_that_it_comes_from(tmp_path: Path) -> None:
    mine = write(tmp_path / "mine.py", more="import other\nprint('a module may print')")
    (tmp_path / "other.py").touch()
    (tmp_path / "unused.py").touch()
    found = handlers.check([mine], os.environ)
    assert found.names == ("mine.greet",)
    assert found.files == {mine, tmp_path / "other.py"}


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("x = (", r"module mine cannot be imported: SyntaxError: .* \(mine.py, line"),
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("import os; os._exit(3)", "mine: the import ended its process"),
        ("import sys; sys.exit('no licence')", "mine: the import ended its process: no licence"),
    ],
)
def test_what_cannot_be_imported_says_why(tmp_path: Path, more: str, said: str) -> None:
    with pytest.raises(LocalError, match=said):
        handlers.check([write(tmp_path / "mine.py", more=more)], os.environ)


def test_two_modules_of_one_name_are_refused(tmp_path: Path) -> None:
    paths = [write(tmp_path / folder / "mine.py", f"{folder}.greet") for folder in ("a", "b")]
    with pytest.raises(LocalError, match="two modules are named mine"):
        handlers.check(paths, os.environ)


def test_a_worker_finds_what_is_declared_and_the_examples(tmp_path: Path) -> None:
    mine, declared = write(tmp_path / "code/mine.py"), tmp_path / "declared"
    handlers.declare([mine], declared)
    program = (
        "from taskflow_worker.sdk.registry import REGISTRY, discover\n"
        "discover(['weather_handlers'])\nimport shop\nprint(*REGISTRY.names)"
    )
    env = os.environ | {"PYTHONPATH": handlers.import_path([mine], declared)}
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert {"mine.greet", "weather.by_month", "taskflow.echo"} <= set(done.stdout.split())


def test_the_import_path_names_each_folder_once(tmp_path: Path) -> None:
    paths = [tmp_path / "code/a.py", tmp_path / "code/b.py"]
    examples = resources.path("examples")
    wanted = [*map(str, (tmp_path / "declared", tmp_path / "code")), "/x", str(examples), str(examples / "celery_app")]
    assert handlers.import_path(paths, tmp_path / "declared", f"/x{os.pathsep}/x").split(os.pathsep) == wanted


class FakeKube:
    """An API server with two Pods, one of which ends already."""

    def __init__(self) -> None:
        self.deleted: list[str] = []

    async def get(self, path: str) -> Any:
        assert path == "/api/v1/pods?labelSelector=taskflow.dev/pool"
        here = {"metadata": {"namespace": "default", "name": "here"}}
        ends = {"metadata": {"namespace": "default", "name": "ends", "deletionTimestamp": "2026-01-01T00:00:00Z"}}
        return {"items": [here, ends]}

    async def request(self, method: str, path: str) -> None:
        self.deleted.append(f"{method} {path}")


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(120):
        while not holds():  # noqa: ASYNC110 - what is waited for is a file, or the call of a fake
            await asyncio.sleep(0.01)


async def test_pods_are_replaced_when_a_file_can_be_imported_again_and_not_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reload, "POLL_SECONDS", 0.02)
    imports: list[bool] = []
    original = Reloader._import

    async def counted(self: Reloader) -> bool:
        imports.append(await original(self))
        return imports[-1]

    monkeypatch.setattr(Reloader, "_import", counted)
    mine, declared, kube = write(tmp_path / "mine.py", more="import other"), tmp_path / "declared", FakeKube()
    (tmp_path / "other.py").touch()
    handlers.declare([mine], declared)
    running = asyncio.create_task(Reloader(kube, [mine], declared).run())  # type: ignore[arg-type]
    await until(lambda: imports == [True])
    write(mine, more="import other; x = (")
    await until(lambda: imports == [True, False])
    assert "SyntaxError" in (declared / handlers.ERROR).read_text()
    assert kube.deleted == []
    write(mine, more="import other; x = ()")
    await until(lambda: kube.deleted)
    assert kube.deleted == ["DELETE /api/v1/namespaces/default/pods/here"]
    assert not (declared / handlers.ERROR).exists()
    (tmp_path / "other.py").write_text("x = 1\n")
    await until(lambda: len(kube.deleted) == 2)
    assert imports == [True, False, True, True]
    running.cancel()
