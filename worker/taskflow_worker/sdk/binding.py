"""A function as a handler: arguments of a Task, which are JSON, are checked against its type hints before each call."""

from __future__ import annotations

import asyncio
import inspect
import json
import sys
import typing
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import SimpleNamespace
from typing import Any, TypeVar

from pydantic import PydanticInvalidForJsonSchema, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails, PydanticSerializationError

from taskflow_core.domain.phases import Reason
from taskflow_core.errors import Invalid
from taskflow_worker.sdk.context import Context
from taskflow_worker.sdk.failures import AttemptFailed, Stopped
from taskflow_worker.sdk.forks import in_same_process
from taskflow_worker.sdk.runnable import ItemCall
from taskflow_worker.sdk.stop import FixedStop, Stop

R = TypeVar("R")
_SHOWN_CHARS = 80
_STOP_POLL_SECONDS = 0.25
_NEVER_STOPPED = FixedStop()


@dataclass
class FunctionHandler:
    """A function that Tasks may name. Its type hints say which arguments it takes."""

    name: str
    function: Callable[..., Any]
    timeout_error: type[BaseException] = Stopped
    batch: bool = False

    @property
    def location(self) -> str:
        """The function's qualified name."""
        return f"{self.function.__module__}.{self.function.__qualname__}"

    def check(self) -> None:
        """Evaluate the hints of the parameters, once everything that they may name is defined.

        Raises:
            Invalid: a hint cannot be evaluated, or arguments cannot be checked against it.
        """
        _ = self._adapters

    @cached_property
    def _whole(self) -> inspect.Signature:
        if sys.version_info >= (3, 14):
            import annotationlib  # noqa: PLC0415 - new in that version

            # Annotations are evaluated when somebody asks for them, and here nobody needs that of the result.
            return inspect.signature(self.function, annotation_format=annotationlib.Format.FORWARDREF)
        return inspect.signature(self.function)

    @cached_property
    def _hints(self) -> dict[str, Any]:
        return {
            name: self._hint(parameter)
            for name, parameter in self._whole.parameters.items()
            if parameter.annotation is not parameter.empty
        }

    def _hint(self, parameter: inspect.Parameter) -> Any:
        """The hint of one parameter. That of the result is not needed, and may name what only type checkers import."""
        function = inspect.unwrap(self.function)
        alone = SimpleNamespace(
            __annotations__={parameter.name: parameter.annotation},
            __type_params__=getattr(function, "__type_params__", ()),
        )
        try:
            found = typing.get_type_hints(alone, getattr(function, "__globals__", {}), include_extras=True)
        except Exception as error:
            raise self._unusable(parameter.name, error) from error
        return found[parameter.name]

    def _unusable(self, name: str, error: Exception) -> Invalid:
        annotation = self._whole.parameters[name].annotation
        shown = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
        cause = str(error).partition("\n")[0]
        advice = "; import it also at run time, not only if TYPE_CHECKING" if isinstance(error, NameError) else ""
        return Invalid(
            f"handler {self.name!r} ({self.location}): the type hint {shown!r} of parameter {name!r} cannot be used to "
            f"check arguments: {type(error).__name__}: {cause}{advice}"
        )

    @cached_property
    def _context(self) -> str | None:
        return next((name for name in self._whole.parameters if _is_context(self._hints.get(name))), None)

    @cached_property
    def _signature(self) -> inspect.Signature:
        """The parameters that a Task may pass: all except the context."""
        return inspect.Signature([p for p in self._whole.parameters.values() if p.name != self._context])

    @cached_property
    def _adapters(self) -> dict[str, TypeAdapter[Any]]:
        return {name: self._adapter(name) for name in self._signature.parameters}

    def _adapter(self, name: str) -> TypeAdapter[Any]:
        try:
            adapter = TypeAdapter(self._hints.get(name, Any))
            # Of a model that names what is not defined, pydantic says so only when it is used.
            adapter.rebuild(raise_errors=True)
        except Exception as error:
            raise self._unusable(name, error) from error
        return adapter

    def kwargs_schema(self) -> dict[str, Any]:
        """JSON Schema of what a Task may pass by name. A parameter without one, such as a callable, admits anything.

        Raises:
            Invalid: a hint cannot be evaluated.
        """
        named = [p for p in self._signature.parameters.values() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        found: dict[str, Any] = {
            "type": "object",
            "properties": {each.name: self._schema(each) for each in named},
            "required": [each.name for each in named if each.default is each.empty],
            "additionalProperties": any(p.kind is p.VAR_KEYWORD for p in self._signature.parameters.values()),
        }
        return found if found["required"] else {key: each for key, each in found.items() if key != "required"}

    def _schema(self, parameter: inspect.Parameter) -> dict[str, Any]:
        adapter = self._adapters[parameter.name]
        try:
            schema = adapter.json_schema()
        except PydanticInvalidForJsonSchema as error:
            return {"$comment": str(error).partition("\n")[0]}
        try:
            shown = adapter.dump_python(parameter.default, mode="json", warnings="error")
        except PydanticSerializationError:
            # No default, or one that is not of the hinted type, such as None.
            return schema
        return schema | {"default": shown}

    def bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Check the arguments of a Task, which are JSON, against the signature.

        The check is strict: "3" is not a number. A string is accepted for a date, a list for a tuple or a set.

        Returns:
            The given arguments by parameter, converted to the hinted types.

        Raises:
            AttemptFailed: InvalidArguments. The message names each parameter, what it expects and what it got.
        """
        signature = f"{self.name}{self._signature}"
        try:
            bound = self._signature.bind(*args, **kwargs)
        except TypeError as error:
            raise AttemptFailed(Reason.INVALID_ARGUMENTS, f"{signature} was given other arguments: {error}") from error
        values: dict[str, Any] = {}
        problems: list[str] = []
        for name, value in bound.arguments.items():
            try:
                values[name] = self._convert(name, value)
            except ValidationError as error:
                problems += [_explain(name, detail) for detail in error.errors(include_url=False)]
        if problems:
            raise AttemptFailed(Reason.INVALID_ARGUMENTS, f"{signature}: " + "; ".join(problems))
        return values

    def _convert(self, name: str, value: Any) -> Any:
        convert = self._adapters[name].validate_json
        kind = self._signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_POSITIONAL:
            return tuple(convert(json.dumps(item), strict=True) for item in value)
        if kind is inspect.Parameter.VAR_KEYWORD:
            return {key: convert(json.dumps(item), strict=True) for key, item in value.items()}
        return convert(json.dumps(value), strict=True)

    def call(self, values: Mapping[str, Any], context: Context, stop: Stop = _NEVER_STOPPED) -> Any:
        """Call the function with bound arguments, and the context if it takes one. An `async` function runs to its end.

        Raises:
            BaseException: whatever the function raises: `Stopped` at a timeout, `asyncio.CancelledError` in a coroutine
                that was told to stop.
        """
        given = dict(values)
        if self._context is not None:
            given[self._context] = context
        bound = self._ordered(given)
        if inspect.iscoroutinefunction(self.function):
            return asyncio.run(_until_stopped(self.function(*bound.args, **bound.kwargs), stop))
        with stop.interrupts(self.timeout_error):
            return self.function(*bound.args, **bound.kwargs)

    def _ordered(self, values: Mapping[str, Any]) -> inspect.BoundArguments:
        # BoundArguments sorts out positional-only parameters, *args and **kwargs. It needs the order of the signature.
        ordered = OrderedDict((name, values[name]) for name in self._whole.parameters if name in values)
        return inspect.BoundArguments(self._whole, ordered)

    def for_items(self, args: Sequence[Any], kwargs: Mapping[str, Any], stop: Stop = _NEVER_STOPPED) -> ItemCall:
        """See `Runnable`. The arguments that all items share are checked once, with the first item."""
        prepared: _ItemArguments | None = None

        def call(item: Any, context: Callable[[], Context]) -> Any:
            nonlocal prepared
            if prepared is None:
                prepared = self._prepare(args, kwargs, item)
            hint = prepared.hint
            value = item if hint is Any or type(item) is hint else self._convert_item(prepared.name, item)
            positional, keyword = prepared.fill(value, context)
            if prepared.asynchronous:
                return asyncio.run(_until_stopped(self.function(*positional, **keyword), stop))
            return self.function(*positional, **keyword)

        return call

    def _prepare(self, args: Sequence[Any], kwargs: Mapping[str, Any], item: Any) -> _ItemArguments:
        values = self.bind([*args, item], kwargs)
        parameters = list(self._signature.parameters.values())
        # The item follows the positional arguments. Beyond the last parameter it is one of `*args`.
        name = next(
            (p.name for number, p in enumerate(parameters) if number == len(args) or p.kind is p.VAR_POSITIONAL), ""
        )
        if self._signature.parameters[name].kind is inspect.Parameter.VAR_POSITIONAL:
            values[name] = (*values[name][:-1], _ITEM)
        else:
            values[name] = _ITEM
        if self._context is not None:
            values[self._context] = _CONTEXT
        bound = self._ordered(values)
        hint = self._hints.get(name, Any)
        asynchronous = inspect.iscoroutinefunction(self.function)
        return _ItemArguments(name, hint, list(bound.args), dict(bound.kwargs), asynchronous)

    def _convert_item(self, name: str, item: Any) -> Any:
        try:
            return self._adapters[name].validate_json(json.dumps(item), strict=True)
        except ValidationError as error:
            problems = "; ".join(_explain(name, detail) for detail in error.errors(include_url=False))
            raise AttemptFailed(Reason.INVALID_ARGUMENTS, f"{self.name}{self._signature}: {problems}") from error


_ITEM, _CONTEXT = object(), object()


@dataclass
class _ItemArguments:
    """Arguments of a function with placeholders for the item and the context."""

    name: str
    hint: Any
    positional: list[Any]
    keyword: dict[str, Any]
    asynchronous: bool

    def __post_init__(self) -> None:
        self._item = next((number for number, value in enumerate(self.positional) if value is _ITEM), None)
        self._context = next((number for number, value in enumerate(self.positional) if value is _CONTEXT), None)
        self._keyword_context = next((name for name, value in self.keyword.items() if value is _CONTEXT), None)

    def fill(self, item: Any, context: Callable[[], Context]) -> tuple[list[Any], dict[str, Any]]:
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
    """Run a coroutine. Cancel it once when a stop is requested."""
    task = asyncio.ensure_future(in_same_process(work))
    cancelled = False
    while not task.done():
        if not cancelled and stop.requested() is not None:
            cancelled = True
            task.cancel()
        await asyncio.wait({task}, timeout=_STOP_POLL_SECONDS)
    # Cancelled before its first step it was not begun.
    work.close()
    return task.result()


def _is_context(hint: object) -> bool:
    return hint is Context or Context in typing.get_args(hint)


def _explain(name: str, detail: ErrorDetails) -> str:
    where = "".join(f"[{part!r}]" for part in detail["loc"])
    found = json.dumps(detail["input"], default=str)
    shown = found if len(found) <= _SHOWN_CHARS else found[:_SHOWN_CHARS] + "..."
    return f"{name}{where}: {detail['msg']}, found {shown}"
