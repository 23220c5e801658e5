"""Readiness probes of containers, and what a container said last, as a kubelet handles both."""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from taskflow_local.kube import Object
from taskflow_local.node.pods import ProcessSpec, expand

MESSAGE_BYTES, MESSAGE_LINES = 2048, 80
"""As much of a log as the kubelet takes for a termination message."""
_FAST_SECONDS, _FAST_TRIES = 1.0, 30
"""A container that starts is asked more often, as the kubelet may do, so that its Pod is ready sooner."""


@dataclass(frozen=True)
class Probe:
    """A readiness probe that runs a command."""

    command: tuple[str, ...]
    period: float
    timeout: float
    failures: int
    """So many in a row make the container unready."""


def readiness(container: Object) -> Probe | None:
    """The readiness probe of a container; None if it has none, or one that runs no command."""
    found = container.get("readinessProbe") or {}
    command = (found.get("exec") or {}).get("command")
    if not command:
        return None
    # The API server has filled in the defaults.
    return Probe(
        tuple(command),
        float(found.get("periodSeconds", 10)),
        float(found.get("timeoutSeconds", 1)),
        int(found.get("failureThreshold", 3)),
    )


async def follow(probe: Probe, spec: ProcessSpec, show: Callable[[bool, str], None]) -> None:
    """Probe until cancelled. Calls `show` with each change, and with what the command printed."""
    passes, failed, tries = False, 0, 0
    while True:
        success, said = await _run(probe, spec)
        tries, failed = tries + 1, 0 if success else failed + 1
        if success != passes and (success or failed >= probe.failures):
            passes = success
            show(passes, said)
        fast = not passes and tries < _FAST_TRIES
        await asyncio.sleep(min(_FAST_SECONDS, probe.period) if fast else probe.period)


async def _run(probe: Probe, spec: ProcessSpec) -> tuple[bool, str]:
    try:
        child = await asyncio.create_subprocess_exec(
            *(expand(word, spec.env) for word in probe.command),
            env=dict(spec.env),
            cwd=spec.cwd,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        return False, str(error)
    try:
        async with asyncio.timeout(probe.timeout):
            output, _ = await child.communicate()
    except TimeoutError:
        return False, f"no answer in {probe.timeout:.0f} s"
    finally:
        if child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
    return child.returncode == 0, output.decode(errors="replace").strip()


def termination_message(container: Object, code: int, log: Path, began_at: int) -> str:
    """The message of a container that ended: the end of its log, if it failed and asks for that. There is no
    termination log here, for there is no file system of its own.

    Args:
        container: its specification.
        code: its exit code.
        log: its output.
        began_at: where the output of this run begins.
    """
    if code == 0 or container.get("terminationMessagePolicy") != "FallbackToLogsOnError":
        return ""
    with log.open("rb") as file:
        file.seek(max(began_at, log.stat().st_size - MESSAGE_BYTES))
        text = file.read(MESSAGE_BYTES).decode(errors="replace")
    return "".join(text.splitlines(keepends=True)[-MESSAGE_LINES:])
