"""Runs the steps of a start in parallel, each as soon as the steps before it are done."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

Log = Callable[[str], None]


@dataclass(frozen=True)
class Step:
    """An action that follows other steps. Names in `after` that are not steps of this start count as done."""

    name: str
    after: tuple[str, ...]
    run: Callable[[], bool]
    """Run the action. False if there was nothing to do."""


class Skipped(Exception):  # noqa: N818 - not an error of its own: the step before it failed and says why
    """A step did not run because a step before it failed."""


def run_all(
    steps: Sequence[Step], log: Log, give_up: Callable[[], None], clock: Callable[[], float] = time.monotonic
) -> None:
    """Run all steps, which must be listed after the steps they wait for. Raises the first error once all have ended.

    `give_up` is called when the caller is interrupted. It must end the steps that still wait.
    """
    began = clock()
    futures: dict[str, Future[None]] = {}

    def run(step: Step) -> None:
        for name in step.after:
            before = futures.get(name)
            if before is not None and before.exception() is not None:
                raise Skipped(step.name)
        if step.run():
            log(f"{step.name}: ready after {clock() - began:.1f} s")

    # One thread for each step: a waiting step must not block the step that it waits for.
    with ThreadPoolExecutor(max(1, len(steps))) as pool:
        for step in steps:
            futures[step.name] = pool.submit(run, step)
        try:
            wait(futures.values())
        except BaseException:
            give_up()
            raise
    errors = [error for future in futures.values() if (error := future.exception()) is not None]
    for error in errors:
        if not isinstance(error, Skipped):
            raise error
