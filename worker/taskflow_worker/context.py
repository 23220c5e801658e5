from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

from taskflow_core.domain.events import Advance
from taskflow_core.domain.phases import Reason
from taskflow_core.domain.task import MAX_CHECKPOINT_BYTES, MAX_MESSAGE_CHARS, Progress
from taskflow_worker.failures import STOPS, Stopped, printable
from taskflow_worker.results import as_json


def _never() -> Reason | None:
    return None


def _to_nobody(_: Advance) -> None:
    return None


@dataclass(frozen=True)
class Context:
    """What a handler may know of the Task that it runs for. A handler asks for it by a parameter annotated `Context`.

    All methods may be called from any thread of the handler.
    """

    uid: str
    """The Task's identity; a re-created Task of the same name has another."""
    namespace: str
    name: str
    attempt: int
    """1, 2, ...: grows with every attempt of the Task. Hand it to a system that refuses writes of an older attempt."""
    token: str
    """Fencing token: names this attempt, unguessable."""
    inputs: Mapping[str, Path]
    """The fetched inputs by name."""
    outputs: Mapping[str, Path]
    """Where to write the declared outputs, by name; nothing is there yet."""
    deadline: datetime | None = None
    """When the attempt will be told to stop, by its own timeout or the deadline of the Task; None if never."""
    index: int | None = None
    """In an array, the index of the item; None in a Task of its own, and for a batch."""
    item: Any = None
    """In an array, the item; for a batch the list of them."""
    last_checkpoint: Any = None
    """What the former attempt left with `checkpoint`; None if nothing."""
    _asked: Callable[[], Reason | None] = field(default=_never, repr=False)
    _tell: Callable[[Advance], None] = field(default=_to_nobody, repr=False)

    def for_item(self, index: int, item: Any) -> Context:
        """The same for an item of an array."""
        # Not `replace`, which sets each field anew: for a million items that is what it costs.
        made = object.__new__(Context)
        made.__dict__.update(self.__dict__)
        made.__dict__["index"], made.__dict__["item"] = index, item
        return made

    def progress(self, done: int, total: int | None = None, message: str = "") -> None:
        """Say how far the work is; shown in the Task's status. Cheap: at most once a second the last call is sent.

        Args:
            done: units of work done, 0 or more.
            total: units in all, if known.
            message: what it does at the moment; cut at 1,024 characters.

        Raises:
            ValueError: a number is negative or no whole number.
        """
        told = Progress(done=done, total=total, message=printable(message)[:MAX_MESSAGE_CHARS])
        self._tell(Advance(progress=told))

    def checkpoint(self, value: Any) -> None:
        """Leave something for the next attempt, in case this one does not end well. The last call wins.

        It is sent within a second; what was told in the second before a process is killed may be lost.

        Raises:
            ValueError: it is more than 4 KiB of JSON, or has no JSON form.
        """
        text = as_json(value)
        size = len(text.encode())
        if size > MAX_CHECKPOINT_BYTES:
            raise ValueError(
                f"the checkpoint is {size} bytes of JSON, at most {MAX_CHECKPOINT_BYTES} are kept; "
                "store the data somewhere and keep its place"
            )
        self._tell(Advance(checkpoint=text))

    @property
    def cancelled(self) -> bool:
        """The attempt is to stop: cancelled, out of time, or taken away. Cheap enough for an inner loop."""
        return self._asked() is not None

    def check(self) -> None:
        """Return if the attempt may go on.

        Raises:
            Stopped: it is to stop. Let it through; the attempt then ends for the reason for which it was told to.
        """
        reason = self._asked()
        if reason is not None:
            raise Stopped(STOPS.get(reason, reason.value))

    def input(self, name: str) -> Path:
        """File of an input.

        Raises:
            KeyError: the Task declares no such input.
        """
        return _named(self.inputs, name, "input")

    def output(self, name: str) -> Path:
        """File to write an output to; it is stored when the handler returns.

        Raises:
            KeyError: the Task declares no such output.
        """
        return _named(self.outputs, name, "output")

    def open_input(self, name: str) -> BinaryIO:
        """An input as a stream of bytes. Close it, or use it in a `with` statement.

        Raises:
            KeyError: the Task declares no such input.
        """
        return self.input(name).open("rb")

    def open_output(self, name: str) -> BinaryIO:
        """A stream of bytes to write an output to, from its beginning. Close it, or use it in a `with` statement.

        Raises:
            KeyError: the Task declares no such output.
        """
        return self.output(name).open("wb")


def last_checkpoint(text: str | None) -> Any:
    """The value of a checkpoint as it travels; None for none."""
    return None if text is None else json.loads(text)


def _named(files: Mapping[str, Path], name: str, what: str) -> Path:
    try:
        return files[name]
    except KeyError:
        known = ", ".join(sorted(files)) or "none"
        raise KeyError(f"the Task declares no {what} {name!r}; it declares: {known}") from None
