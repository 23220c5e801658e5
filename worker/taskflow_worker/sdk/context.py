"""What a handler sees of its attempt: identity, files, progress, checkpoints and stop requests."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

from taskflow_core.domain.events import Advance
from taskflow_core.domain.phases import Reason
from taskflow_core.domain.task import MAX_MESSAGE_CHARS, Progress
from taskflow_worker.sdk.failures import STOP_MESSAGES, Stopped, printable
from taskflow_worker.sdk.json_text import checkpoint_text


def _never_stopped() -> Reason | None:
    return None


def _discard(_: Advance) -> None:
    return None


@dataclass(frozen=True)
class Context:
    """The Task and the attempt of a running handler. Annotate any parameter with `Context` to receive it.

    All methods may be called from any thread of the handler.
    """

    uid: str
    """The Task's identity. A re-created Task of the same name has a different one."""
    namespace: str
    name: str
    attempt: int
    """1, 2, ...: grows with every attempt of the Task. Pass it to systems that refuse writes of older attempts."""
    token: str
    """Fencing token: an unguessable name of this attempt."""
    inputs: Mapping[str, Path]
    """Files of the fetched inputs, by name."""
    outputs: Mapping[str, Path]
    """Files to write the declared outputs to, by name. They do not exist yet."""
    deadline: datetime | None = None
    """When the attempt is told to stop, by its own timeout or by the Task's deadline. None if never."""
    index: int | None = None
    """In an array, the index of the item. None outside arrays and for a batch."""
    item: Any = None
    """In an array, the item, or the list of items for a batch."""
    last_checkpoint: Any = None
    """The value that an earlier attempt saved with `checkpoint`. None if there is none."""
    handbacks: int = 0
    """Attempts before this one that do not count against `maxAttempts`: those that raised `Again`, for example."""
    _stop_requested: Callable[[], Reason | None] = field(default=_never_stopped, repr=False)
    _report: Callable[[Advance], None] = field(default=_discard, repr=False)

    def for_item(self, index: int, item: Any) -> Context:
        """Copy the context for one item of an array."""
        # Not `replace`: it sets each field again, which dominates the cost of a million items.
        made = object.__new__(Context)
        made.__dict__.update(self.__dict__)
        made.__dict__["index"], made.__dict__["item"] = index, item
        return made

    def progress(self, done: int, total: int | None = None, message: str = "") -> None:
        """Report progress, which the Task's status shows. Cheap: the latest value is sent at most once a second.

        Args:
            done: units of work done, 0 or more.
            total: units of work in total, if known.
            message: what the handler is doing. Cut at 1,024 characters.

        Raises:
            ValueError: a number is negative or not a whole number.
        """
        progress = Progress(done=done, total=total, message=printable(message)[:MAX_MESSAGE_CHARS])
        self._report(Advance(progress=progress))

    def checkpoint(self, value: Any) -> None:
        """Save a value for the next attempt, in case this one does not succeed. The last call wins.

        It is sent within a second. If the process is killed before that, the value may be lost.

        Raises:
            ValueError: the value is more than 4 KiB of JSON, or has no JSON form.
        """
        self._report(Advance(checkpoint=checkpoint_text(value)))

    @property
    def cancelled(self) -> bool:
        """The attempt must stop: it was cancelled, timed out or lost its lease. Cheap enough for an inner loop."""
        return self._stop_requested() is not None

    def check(self) -> None:
        """Return if the attempt may continue.

        Raises:
            Stopped: the attempt must stop. Do not catch it: the attempt then ends with the reason of the request.
        """
        reason = self._stop_requested()
        if reason is not None:
            raise Stopped(STOP_MESSAGES.get(reason, reason.value))

    def input(self, name: str) -> Path:
        """The file of an input.

        Raises:
            KeyError: the Task declares no such input.
        """
        return _named(self.inputs, name, "input")

    def output(self, name: str) -> Path:
        """The file to write an output to. It is stored when the handler returns.

        Raises:
            KeyError: the Task declares no such output.
        """
        return _named(self.outputs, name, "output")

    def open_input(self, name: str) -> BinaryIO:
        """Open an input for reading bytes. Close it, or use it in a `with` statement.

        Raises:
            KeyError: the Task declares no such input.
        """
        return self.input(name).open("rb")

    def open_output(self, name: str) -> BinaryIO:
        """Open an output for writing bytes, from its start. Close it, or use it in a `with` statement.

        Raises:
            KeyError: the Task declares no such output.
        """
        return self.output(name).open("wb")


def parse_checkpoint(text: str | None) -> Any:
    """The value of an encoded checkpoint. None if there is none."""
    return None if text is None else json.loads(text)


def _named(files: Mapping[str, Path], name: str, what: str) -> Path:
    try:
        return files[name]
    except KeyError:
        known = ", ".join(sorted(files)) or "none"
        raise KeyError(f"the Task declares no {what} {name!r}; it declares: {known}") from None
