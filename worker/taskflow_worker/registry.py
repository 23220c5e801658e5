from __future__ import annotations

import asyncio
import importlib
import inspect
import json
import typing
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import entry_points
from typing import Any, ParamSpec, Protocol, TypeVar

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from taskflow_core.domain.phases import Reason
from taskflow_core.errors import Invalid
from taskflow_worker.context import Context
from taskflow_worker.failures import AttemptFailed, Stopped
from taskflow_worker.stopping import Fixed, Stop

P = ParamSpec("P")
R = TypeVar("R")

ENTRY_POINT_GROUP = "taskflow.handlers"
_SHOWN_CHARS = 80
_STOP_POLL_SECONDS = 0.25
_GO_ON = Fixed()


ItemCall = Callable[[Any, Callable[[], Context]], Any]
"""Runs a handler for one item; makes its context only if the handler asks for it. Raises AttemptFailed and what the handler raises."""


class Runnable(Protocol):
    """What a Task may name."""

    name: str
    timeout_error: type[BaseException]
    """What is raised inside it when its time is over."""
    batch: bool
    """In an array it gets a list of items, in place of one."""

    def bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Mapping[str, Any]:
        """Check the arguments of a Task, which are JSON; raises AttemptFailed."""

    def call(self, values: Mapping[str, Any], context: Context, stop: Stop) -> Any:
        """Run it with what `bind` returned."""

    def each(self, args: Sequence[Any], kwargs: Mapping[str, Any], stop: Stop) -> ItemCall:
        """Run it again and again with these arguments and an item after the positional ones, as `map` would."""

    @property
    def place(self) -> str:
        """Where it is defined, for a person."""


@dataclass
class Handler:
    """A function that Tasks may name. Arguments are checked against its type hints before it is called."""

    name: str
    function: Callable[..., Any]
    timeout_error: type[BaseException] = Stopped
    batch: bool = False

    @property
    def place(self) -> str:
        """Where the function is defined."""
        return f"{self.function.__module__}.{self.function.__qualname__}"

    @cached_property
    def _hints(self) -> dict[str, Any]:
        # Late, at the first call: hints may name types that are defined below the function.
        return typing.get_type_hints(self.function, include_extras=True)

    @cached_property
    def _context(self) -> str | None:
        parameters = inspect.signature(self.function).parameters
        return next((name for name in parameters if _is_context(self._hints.get(name))), None)

    @cached_property
    def _signature(self) -> inspect.Signature:
        """What a Task may pass: all but the context."""
        parameters = inspect.signature(self.function).parameters.values()
        return inspect.Signature([p for p in parameters if p.name != self._context])

    @cached_property
    def _adapters(self) -> dict[str, TypeAdapter[Any]]:
        return {name: TypeAdapter(self._hints.get(name, Any)) for name in self._signature.parameters}

    def bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Check the arguments of a Task, which are JSON, against the signature.

        Strict: "3" is no number. A string is taken where the hint is a date, a list where it is a tuple or set.

        Returns:
            The arguments that were given, by parameter, converted to the hinted types.

        Raises:
            AttemptFailed: InvalidArguments, naming each parameter, what it expects and what it got.
        """
        wanted = f"{self.name}{self._signature}"
        try:
            bound = self._signature.bind(*args, **kwargs)
        except TypeError as error:
            raise AttemptFailed(Reason.INVALID_ARGUMENTS, f"{wanted} was given other arguments: {error}") from error
        values: dict[str, Any] = {}
        problems: list[str] = []
        for name, value in bound.arguments.items():
            try:
                values[name] = self._convert(name, value)
            except ValidationError as error:
                problems += [_explain(name, detail) for detail in error.errors(include_url=False)]
        if problems:
            raise AttemptFailed(Reason.INVALID_ARGUMENTS, f"{wanted}: " + "; ".join(problems))
        return values

    def _convert(self, name: str, value: Any) -> Any:
        convert = self._adapters[name].validate_json
        kind = self._signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_POSITIONAL:
            return tuple(convert(json.dumps(item), strict=True) for item in value)
        if kind is inspect.Parameter.VAR_KEYWORD:
            return {key: convert(json.dumps(item), strict=True) for key, item in value.items()}
        return convert(json.dumps(value), strict=True)

    def call(self, values: Mapping[str, Any], context: Context, stop: Stop = _GO_ON) -> Any:
        """Call the function with bound arguments, and the context if it asks for it; run it to its end if it is `async`.

        Raises:
            BaseException: what the function raises; `Stopped` when its time is over, `asyncio.CancelledError` in a
                coroutine that was told to stop.
        """
        given = dict(values)
        if self._context is not None:
            given[self._context] = context
        # BoundArguments sorts out positional-only, *args and **kwargs; it wants the order of the signature.
        signature = inspect.signature(self.function)
        ordered = OrderedDict((name, given[name]) for name in signature.parameters if name in given)
        bound = inspect.BoundArguments(signature, ordered)
        if inspect.iscoroutinefunction(self.function):
            return asyncio.run(_until_stopped(self.function(*bound.args, **bound.kwargs), stop))
        with stop.interrupts(self.timeout_error):
            return self.function(*bound.args, **bound.kwargs)

    def each(self, args: Sequence[Any], kwargs: Mapping[str, Any], stop: Stop = _GO_ON) -> ItemCall:
        """See `Runnable`. What is the same for all items is checked and arranged with the first one only."""
        place: _Place | None = None

        def call(item: Any, context: Callable[[], Context]) -> Any:
            nonlocal place
            if place is None:
                place = self._arrange(args, kwargs, item)
            value = item if place.hint is Any or type(item) is place.hint else self._item(place.name, item)
            positional, keyword = place.filled(value, context)
            if place.asynchronous:
                return asyncio.run(_until_stopped(self.function(*positional, **keyword), stop))
            return self.function(*positional, **keyword)

        return call

    def _arrange(self, args: Sequence[Any], kwargs: Mapping[str, Any], item: Any) -> _Place:
        values = self.bind([*args, item], kwargs)
        parameters = list(self._signature.parameters.values())
        # It is the argument after the positional ones; beyond the last parameter it is one of `*args`.
        name = next(
            (p.name for number, p in enumerate(parameters) if number == len(args) or p.kind is p.VAR_POSITIONAL), ""
        )
        if self._signature.parameters[name].kind is inspect.Parameter.VAR_POSITIONAL:
            values[name] = (*values[name][:-1], _ITEM)
        else:
            values[name] = _ITEM
        if self._context is not None:
            values[self._context] = _CONTEXT
        signature = inspect.signature(self.function)
        ordered = OrderedDict((each, values[each]) for each in signature.parameters if each in values)
        bound = inspect.BoundArguments(signature, ordered)
        hint = self._hints.get(name, Any)
        asynchronous = inspect.iscoroutinefunction(self.function)
        return _Place(name, hint, list(bound.args), dict(bound.kwargs), asynchronous)

    def _item(self, name: str, item: Any) -> Any:
        try:
            return self._adapters[name].validate_json(json.dumps(item), strict=True)
        except ValidationError as error:
            problems = "; ".join(_explain(name, detail) for detail in error.errors(include_url=False))
            raise AttemptFailed(Reason.INVALID_ARGUMENTS, f"{self.name}{self._signature}: {problems}") from error


_ITEM, _CONTEXT = object(), object()


@dataclass
class _Place:
    """Arguments of a function, with places for what is another thing for each item."""

    name: str
    hint: Any
    positional: list[Any]
    keyword: dict[str, Any]
    asynchronous: bool

    def __post_init__(self) -> None:
        self._item = next((number for number, value in enumerate(self.positional) if value is _ITEM), None)
        self._context = next((number for number, value in enumerate(self.positional) if value is _CONTEXT), None)
        self._keyword_context = next((name for name, value in self.keyword.items() if value is _CONTEXT), None)

    def filled(self, item: Any, context: Callable[[], Context]) -> tuple[list[Any], dict[str, Any]]:
        """The arguments for one item."""
        if self._item is None:
            self.keyword[self.name] = item
        else:
            self.positional[self._item] = item
        if self._context is not None:
            self.positional[self._context] = context()
        if self._keyword_context is not None:
            self.keyword[self._keyword_context] = context()
        return self.positional, self.keyword


async def _until_stopped(work: Coroutine[Any, Any, R], stop: Stop) -> R:
    """Run it; cancel it once when it is to stop."""
    task = asyncio.ensure_future(work)
    told = False
    while not task.done():
        if not told and stop.asked() is not None:
            told = True
            task.cancel()
        await asyncio.wait({task}, timeout=_STOP_POLL_SECONDS)
    return task.result()


class Registry:
    """The handlers that this worker knows, by name."""

    def __init__(self) -> None:
        self._handlers: dict[str, Runnable] = {}

    def add(self, name: str, function: Callable[..., Any], *, batch: bool = False) -> None:
        """Register a function.

        Raises:
            Invalid: the name is taken by another function.
        """
        self.register(Handler(name, function, batch=batch))

    def register(self, new: Runnable) -> None:
        """Register anything that runs.

        Raises:
            Invalid: the name is taken by something else.
        """
        former = self._handlers.setdefault(new.name, new)
        if former != new:
            raise Invalid(f"two handlers are named {new.name!r}: {former.place} and {new.place}; rename one of them")

    def find(self, name: str) -> Runnable:
        """The handler of that name.

        Raises:
            AttemptFailed: UnknownHandler, naming those that are known.
        """
        try:
            return self._handlers[name]
        except KeyError:
            known = ", ".join(sorted(self._handlers)) or "none"
            raise AttemptFailed(
                Reason.UNKNOWN_HANDLER,
                f"no handler {name!r} in this worker; it has: {known}. Deploy a worker that registers it, or correct "
                "spec.handler.",
            ) from None

    @property
    def names(self) -> tuple[str, ...]:
        """All names, sorted."""
        return tuple(sorted(self._handlers))


REGISTRY = Registry()
"""What `@handler` fills; one per process."""


def handler(name: str, *, batch: bool = False) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Register a function under the name that Tasks use; the function itself is left as it is.

    Args:
        name: of dots, letters and digits, unique in the worker.
        batch: in an array it gets a list of items, and returns None or a list of as many results.

    Raises:
        Invalid: another function has this name.
    """

    def register(function: Callable[P, R]) -> Callable[P, R]:
        REGISTRY.add(name, function, batch=batch)
        return function

    return register


def discover(modules: Iterable[str]) -> None:
    """Import the modules and all installed entry points of group `taskflow.handlers`; each registers its handlers.

    Raises:
        Invalid: one cannot be imported; the message names it and the cause.
    """
    names = {
        entry.value: f"entry point {entry.name} ({entry.value})" for entry in entry_points(group=ENTRY_POINT_GROUP)
    }
    names |= {module: f"module {module}" for module in modules}
    for module, described in names.items():
        try:
            importlib.import_module(module)
        except Exception as error:
            raise Invalid(f"handlers of {described} cannot be imported: {type(error).__name__}: {error}") from error


def _is_context(hint: object) -> bool:
    return hint is Context or Context in typing.get_args(hint)


def _explain(name: str, detail: ErrorDetails) -> str:
    where = "".join(f"[{part!r}]" for part in detail["loc"])
    found = json.dumps(detail["input"], default=str)
    shown = found if len(found) <= _SHOWN_CHARS else found[:_SHOWN_CHARS] + "..."
    return f"{name}{where}: {detail['msg']}, found {shown}"
