"""Running the steps of a start at the same time, each as soon as the steps before it are done."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

Log = Callable[[str], None]


@dataclass(frozen=True)
class Step:
    """Something to do after other steps; names that are no step of this start are already done."""

    name: str
    after: tuple[str, ...]
    run: Callable[[], bool]
    """Does it; False when there was nothing to do."""


class Skipped(Exception):  # noqa: N818 - not an error of its own: the step before it failed and says why
    """A step was not taken because one before it failed."""


def run_all(
    steps: Sequence[Step], log: Log, give_up: Callable[[], None], clock: Callable[[], float] = time.monotonic
) -> None:
    """Take all steps; they must be listed after what they wait for. Raises the first error once all have ended.

    `give_up` is called when the caller is interrupted: it must make the steps that still wait end soon.
    """
    began = clock()
    futures: dict[str, Future[None]] = {}

    def take(step: Step) -> None:
        for name in step.after:
            before = futures.get(name)
            if before is not None and before.exception() is not None:
                raise Skipped(step.name)
        if step.run():
            log(f"{step.name}: ready after {clock() - began:.1f} s")

    # One thread for each step: a step that waits must never keep the one it waits for from running.
    with ThreadPoolExecutor(max(1, len(steps))) as pool:
        for step in steps:
            futures[step.name] = pool.submit(take, step)
        try:
            wait(futures.values())
        except BaseException:
            give_up()
            raise
    errors = [error for future in futures.values() if (error := future.exception()) is not None]
    for error in errors:
        if not isinstance(error, Skipped):
            raise error
