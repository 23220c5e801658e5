"""Finds each program: given path, PATH, cache, download, build.

`python -m taskflow_local.programs` prints the paths.
"""

import argparse
import fcntl
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from taskflow_local import debian, fetch, gobuild
from taskflow_local.catalogue import FOR_TESTS, PROGRAMS, Program
from taskflow_local.errors import LocalError, ProgramMissingError
from taskflow_local.versions import Version, find_version, show

Log = Callable[[str], None]


class Machine:
    """Access to the machine. Unit tests replace it with a fake."""

    def which(self, name: str, path: str) -> str | None:
        """Find a program on a search path."""
        return shutil.which(name, path=path)

    def folders(self, pattern: str) -> list[str]:
        """List folders by a pattern, newest version first."""
        found = (str(folder) for folder in Path("/").glob(pattern.lstrip("/")))
        return sorted(found, key=lambda folder: find_version(f"{folder}.0") or (0,), reverse=True)

    def is_program(self, path: Path) -> bool:
        """Tell whether the path is an executable file."""
        return path.is_file() and os.access(path, os.X_OK)

    def version(self, path: str, arguments: tuple[str, ...]) -> Version | None:
        """Ask a program for its version. None if it prints none."""
        try:
            answer = subprocess.run([path, *arguments], capture_output=True, text=True, timeout=20, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return find_version(answer.stdout + answer.stderr)

    def can_install(self) -> bool:
        """Tell whether packages may be installed."""
        return debian.can_install()

    def install(self, package: str, log: Log) -> None:
        """Install a Debian package."""
        debian.install(package, log)

    def fetch(self, program: Program, target: Path) -> bool:
        """Download a program. False if upstream has none for this machine. Raises OSError without network."""
        arch = fetch.architecture()
        if arch is None:
            return False
        fetch.fetch(program, target, arch)
        return True

    def build(self, program: Program, target: Path, cache: Path, log: Log) -> None:
        """Build a program from its Go module."""
        gobuild.build(program, target, cache, log)


def default_cache(environ: Mapping[str, str]) -> Path:
    """The folder of built and downloaded programs: `$XDG_CACHE_HOME/taskflow/bin`."""
    base = environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "taskflow" / "bin"


@dataclass
class Resolver:
    """Finds programs in the documented order. Without network, it tries only one download."""

    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    log: Log = print
    machine: Machine = field(default_factory=Machine)
    cache: Path | None = None
    _offline: bool = False
    # Two parallel builds take as long as two in sequence, and their progress is harder to read.
    _making: threading.Lock = field(default_factory=threading.Lock)

    def resolve(self, name: str) -> Path:
        """The path of a program, which is downloaded or built if needed. Raises LocalError that says what to do."""
        program = PROGRAMS[name]
        if given := self.environ.get(program.variable):
            return self._given(program, Path(given))
        found, refused = self._installed(program)
        if found:
            return found
        if program.go is not None:
            return self._made(program)
        return self._packaged(program, refused)

    def _given(self, program: Program, path: Path) -> Path:
        if not self.machine.is_program(path):
            raise ProgramMissingError(
                f"{program.variable}={path}: expected an executable file, found none; correct or unset "
                f"{program.variable}"
            )
        return path.absolute()

    def _installed(self, program: Program) -> tuple[Path | None, str]:
        """Look on PATH and in the program's usual folders. Also returns what was found but not accepted."""
        path = self.environ.get("PATH", os.defpath)
        folders = [path, *(self.machine.folders(program.folders) if program.folders else ())]
        refused = "found none"
        for folder in folders:
            candidate = self.machine.which(program.name, folder)
            if candidate is None:
                continue
            version = self.machine.version(candidate, program.version_arguments)
            if version is not None and version in program.accepted:
                return Path(candidate).absolute(), ""
            refused = f"found {candidate} ({show(version) if version else 'version unknown'})"
        return None, refused

    def _made(self, program: Program) -> Path:
        cache = self.cache or default_cache(self.environ)
        cache.mkdir(parents=True, exist_ok=True)
        assert program.go is not None  # noqa: S101 - resolve() decided it
        built = cache / f"{program.name}-{program.go.fingerprint()}"
        fetched = cache / f"{program.name}-{program.download.version}" if program.download else None
        with self._making, _locked(cache / f".{program.name}.lock", lambda: self._say_waiting(program)):
            for path in (fetched, built):
                if path is not None and self.machine.is_program(path):
                    return path
            if fetched is not None and self._downloaded(program, fetched):
                return fetched
            self.machine.build(program, built, cache, self.log)
        return built

    def _say_waiting(self, program: Program) -> None:
        self.log(f"waiting for another process that is making {program.name}")

    def _downloaded(self, program: Program, target: Path) -> bool:
        if self._offline or self.environ.get("TASKFLOW_DOWNLOAD") == "0":
            return False
        try:
            return self.machine.fetch(program, target)
        except OSError as error:
            self._offline = True
            self.log(f"no download of {program.name} ({error}): building from source instead")
            return False

    def _packaged(self, program: Program, refused: str) -> Path:
        package = program.debian_package
        if package is not None and self.machine.can_install():
            self.machine.install(package, self.log)
            found, refused = self._installed(program)
            if found:
                return found
        raise ProgramMissingError(
            f"{program.name}: expected {program.accepted} on PATH, {refused}; install it (Debian: apt-get install "
            f"{package}) or set {program.variable} to its path"
        )


@contextmanager
def _locked(path: Path, say_waiting: Callable[[], None]) -> Iterator[None]:
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say_waiting()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def main(argv: Iterable[str] | None = None) -> int:
    """Find the named programs, by default all except those that only tests start, and print `name path` lines."""
    parser = argparse.ArgumentParser(prog="python -m taskflow_local.programs", description=main.__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"any of {', '.join(PROGRAMS)}")
    names = parser.parse_args(None if argv is None else list(argv)).names
    unknown = [name for name in names if name not in PROGRAMS]
    if unknown:
        parser.error(f"unknown program {unknown[0]}: expected one of {', '.join(PROGRAMS)}")
    resolver = Resolver(log=lambda line: print(line, file=sys.stderr, flush=True))
    try:
        for name in names or [name for name in PROGRAMS if name not in FOR_TESTS]:
            print(name, resolver.resolve(name), flush=True)
    except LocalError as error:
        print(f"programs: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
