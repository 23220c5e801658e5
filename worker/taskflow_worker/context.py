from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Context:
    """What a handler may know of the Task that it runs for. A handler asks for it by a parameter annotated `Context`."""

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


def _named(files: Mapping[str, Path], name: str, what: str) -> Path:
    try:
        return files[name]
    except KeyError:
        known = ", ".join(sorted(files)) or "none"
        raise KeyError(f"the Task declares no {what} {name!r}; it declares: {known}") from None
