"""A developer's own handlers: which modules a path means, and how workers get them.

They are declared as an installed package declares its own: by entry points of the group `taskflow.handlers`, in a
folder on the import path of Pods. So every worker has them, whatever its pool names, and says why if it does not.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from taskflow_core import resources
from taskflow_local.errors import LocalError

PODS_PATH = "TASKFLOW_LOCAL_PODS_PYTHONPATH"
"""Variable of the node: the import path of its Pods. The node itself does not import from there."""
ERROR = "error"
"""File beside the declaration: why workers have older handlers than the files, which cannot be imported."""
_IMPORT_SECONDS = 120
_MARK = "\x1ehandlers:"
# Imports the modules as a worker does. A module may print, so the answer has a mark.
_PROGRAM = f"""
import json, sys
from taskflow_core.errors import Invalid
from taskflow_worker.sdk.registry import REGISTRY, discover
discover(())
installed = set(REGISTRY.names)
try:
    discover(sys.argv[1:])
except Invalid as error:
    print({_MARK!r} + json.dumps({{"error": str(error)}}))
    sys.exit(1)
files = [getattr(each, "__file__", None) for each in list(sys.modules.values())]
names = [name for name in REGISTRY.names if name not in installed]
print({_MARK!r} + json.dumps({{"names": names, "files": [each for each in files if each]}}))
"""


@dataclass(frozen=True)
class Imported:
    """What modules have when they are imported: names of handlers, and the source files below their folders."""

    names: tuple[str, ...]
    files: frozenset[Path]


def modules(path: Path) -> tuple[Path, tuple[str, ...]]:
    """The folder to import from and the modules that a path means: a file, a package, or all files of a folder.

    Raises:
        LocalError: there are none.
    """
    if path.is_dir():
        if (path / "__init__.py").exists():
            return _root(path), (path.name,)
        names = tuple(sorted(each.stem for each in path.glob("*.py") if each.stem.isidentifier()))
        if not names:
            raise LocalError(f"{path}: expected Python files with handlers, found none")
        return path, names
    if not path.exists():
        raise LocalError(f"{path}: no such file or folder; --handlers takes a Python file, a package or a folder")
    if path.suffix != ".py" or not path.stem.isidentifier():
        raise LocalError(f"{path}: expected a Python file that can be imported, such as my_handlers.py")
    return _root(path), (path.stem,)


def _root(path: Path) -> Path:
    return path if path.is_dir() and not (path / "__init__.py").exists() else path.parent


def import_path(paths: Iterable[Path], declared: Path, base: str = "") -> str:
    """PYTHONPATH of Pods: the declaration, the developer's folders, the given path, and the examples."""
    folders = [str(_root(path)) for path in paths]
    examples = resources.path("examples")
    parts = (str(declared), *folders, *base.split(os.pathsep), str(examples), str(examples / "celery_app"))
    return os.pathsep.join(dict.fromkeys(part for part in parts if part))


def check(paths: Sequence[Path], environ: Mapping[str, str]) -> Imported:
    """Import the modules of these paths in a process of their own, as a worker does.

    Raises:
        LocalError: one cannot be imported, or two have one name.
    """
    found = [modules(path) for path in paths]
    names = [name for _, each in found for name in each]
    for name in names:
        if names.count(name) > 1:
            raise LocalError(f"two modules are named {name}: rename one of them")
    folders = [str(root) for root, _ in found]
    env = {**environ, "PYTHONPATH": os.pathsep.join((*folders, environ.get("PYTHONPATH", "")))}
    # No bytecode: a file that changes twice within a second would be taken from the cache.
    run = [sys.executable, "-B", "-c", _PROGRAM, *names]
    try:
        done = subprocess.run(run, env=env, capture_output=True, text=True, timeout=_IMPORT_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise LocalError(f"{', '.join(names)}: the import did not end within {_IMPORT_SECONDS} s") from None
    _, mark, answer = done.stdout.rpartition(_MARK)
    told = json.loads(answer) if mark else {}
    if done.returncode or not mark:
        said = done.stderr.strip().splitlines() or ["it said nothing"]
        raise LocalError(told.get("error") or f"{', '.join(names)}: the import ended its process: {said[-1]}")
    files = (Path(each) for each in told["files"])
    roots = [Path(each).absolute() for each in folders]
    own = frozenset(each for each in files if any(root in each.parents for root in roots))
    return Imported(tuple(told["names"]), frozenset(each for each in own if "site-packages" not in each.parts))


def declare(paths: Sequence[Path], declared: Path) -> None:
    """Write the declaration that workers find. The files can be imported, so no error is left."""
    folder = declared / "taskflow_local_handlers-0.dist-info"
    folder.mkdir(parents=True, exist_ok=True)
    names = [name for path in paths for name in modules(path)[1]]
    lines = ["[taskflow.handlers]", *(f"{name} = {name}" for name in names)]
    for file, content in (
        ("METADATA", "Metadata-Version: 2.1\nName: taskflow-local-handlers\nVersion: 0\n"),
        ("entry_points.txt", "\n".join(lines) + "\n"),
    ):
        part = folder / f".{file}.part"
        part.write_text(content)
        part.replace(folder / file)
    (declared / ERROR).unlink(missing_ok=True)


def choose(paths: Sequence[Path], declared: Path, environ: Mapping[str, str], log: Callable[[str], None]) -> None:
    """Check and declare these paths, and say what they have.

    Raises:
        LocalError: as `check`.
    """
    imported = check(paths, environ)
    declare(paths, declared)
    if not paths:
        log("handlers: only those of the pools")
        return
    names = ", ".join(imported.names) or "none; register one with @handler(NAME)"
    log(f"handlers: {names}; from {', '.join(map(str, paths))}")
    log("workers restart when these files change")


def fingerprint(paths: Iterable[Path], files: Iterable[Path]) -> dict[Path, tuple[int, int]]:
    """Time and size of the files that were imported, and of those that a folder has now."""
    found: dict[Path, tuple[int, int]] = {}
    for path in paths:
        files = {*files, *(path.glob("*.py") if path.is_dir() else (path,))}
    for file in files:
        try:
            seen = file.stat()
        except OSError:
            continue
        found[file] = (seen.st_mtime_ns, seen.st_size)
    return found
