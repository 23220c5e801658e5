from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import BaseModel

from taskflow_core.domain.phases import Reason
from taskflow_core.errors import Invalid
from taskflow_worker.sdk.binding import FunctionHandler
from taskflow_worker.sdk.context import Context
from taskflow_worker.sdk.failures import AttemptFailed
from taskflow_worker.sdk.registry import REGISTRY, Registry, discover, handler
from taskflow_worker.sdk.stop import FixedStop

CONTEXT = Context(uid="u", namespace="n", name="t", attempt=2, token="t", inputs={}, outputs={})


class Sale(BaseModel):
    item: str
    price: int = 1


@dataclass(frozen=True)
class Point:
    x: int
    y: int = 0


def run(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    made = FunctionHandler("h", function)
    return made.call(made.bind(args, kwargs), CONTEXT)


def refusal(function: Callable[..., Any], *args: Any, **kwargs: Any) -> str:
    with pytest.raises(AttemptFailed) as caught:
        FunctionHandler("h", function).bind(args, kwargs)
    assert caught.value.failure.reason is Reason.INVALID_ARGUMENTS
    return caught.value.failure.message


def number(n: int) -> int:
    return n


def anything(value, other=3):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    return value, other


def every_kind(first: int, /, second: int, third: int = 3, *rest: int, named: int, other: int = 6, **more: int) -> Any:
    return first, second, third, rest, named, other, more


def many(*values: date, **named: Point) -> Any:
    return values, named


@pytest.mark.parametrize(
    ("args", "kwargs", "expected"),
    [
        ((1, 2), {"named": 5}, (1, 2, 3, (), 5, 6, {})),
        ((1, 2, 30, 4, 5), {"named": 6, "extra": 7}, (1, 2, 30, (4, 5), 6, 6, {"extra": 7})),
        ((1,), {"second": 2, "third": 4, "named": 5, "other": 7}, (1, 2, 4, (), 5, 7, {})),
    ],
)
def test_every_kind_of_parameter_is_passed_as_python_would(args: Any, kwargs: Any, expected: Any) -> None:
    assert run(every_kind, *args, **kwargs) == expected


def test_a_default_that_is_skipped_does_not_shift_what_follows() -> None:
    def defaults(a: int = 1, /, b: int = 2, c: int = 3) -> tuple[int, int, int]:
        return a, b, c

    assert run(defaults, c=9) == (1, 2, 9)
    assert run(defaults, 5, c=9) == (5, 2, 9)


def test_extra_arguments_are_converted_one_by_one() -> None:
    assert run(many, "2026-03-01", "2026-03-02", p={"x": 1}) == (
        (date(2026, 3, 1), date(2026, 3, 2)),
        {"p": Point(1)},
    )
    assert "values" in refusal(many, "2026-03-01", "never")


@pytest.mark.parametrize("value", ["3", 3.5, True, None, [3]])
def test_a_number_is_not_guessed(value: Any) -> None:
    message = refusal(number, value)
    assert message.startswith("h(n: 'int'): n: Input should be a valid integer, found ")


@pytest.mark.parametrize(
    ("hint", "given", "expected"),
    [
        (float, 3, 3.0),
        (date, "2026-03-01", date(2026, 3, 1)),
        (datetime, "2026-03-01T12:00:00Z", datetime(2026, 3, 1, 12, tzinfo=UTC)),
        (tuple[int, ...], [1, 2], (1, 2)),
        (set[str], ["a", "a"], {"a"}),
        (dict[str, int], {"a": 1}, {"a": 1}),
        (int | None, None, None),
        (Literal["a", "b"], "b", "b"),
        (Path, "/x", Path("/x")),
        (bytes, "x", b"x"),
        (Sale, {"item": "tea"}, Sale(item="tea")),
        (list[Point], [{"x": 1, "y": 2}], [Point(1, 2)]),
        (Any, {"a": [None]}, {"a": [None]}),
    ],
)
def test_json_becomes_what_the_hint_asks_for(hint: Any, given: Any, expected: Any) -> None:
    def typed(value: Any) -> Any:
        return value

    typed.__annotations__["value"] = hint
    assert run(typed, given) == expected


@pytest.mark.parametrize(
    ("hint", "given"),
    [
        (Sale, {"item": "tea", "price": "3"}),
        (Sale, {}),
        (Point, {"x": "1"}),
        (tuple[int, int], [1]),
        (Literal["a"], "b"),
        (date, "2026-02-30"),
        (str, 3),
        (bool, 1),
    ],
)
def test_a_value_of_the_wrong_type_is_refused(hint: Any, given: Any) -> None:
    def typed(value: Any) -> Any:
        return value

    typed.__annotations__["value"] = hint
    assert ": value" in refusal(typed, given)


def test_a_parameter_without_a_hint_takes_anything() -> None:
    assert run(anything, {"a": None}) == ({"a": None}, 3)


def test_every_problem_is_named_at_once_with_its_place() -> None:
    def report(sale: Sale, count: int) -> None:
        raise AssertionError

    message = refusal(report, {"item": 1}, count="2")
    assert "sale['item']: Input should be a valid string, found 1" in message
    assert 'count: Input should be a valid integer, found "2"' in message


def test_a_long_value_is_cut_in_the_message() -> None:
    assert len(refusal(number, "x" * 5000)) < 300


@pytest.mark.parametrize(("args", "kwargs"), [((), {}), ((1, 2), {}), ((1,), {"n": 1}), ((1,), {"m": 1})])
def test_arguments_that_fit_no_parameter_show_the_signature(args: Any, kwargs: Any) -> None:
    message = refusal(number, *args, **kwargs)
    assert message.startswith("h(n:")
    assert "was given other arguments" in message


def test_any_parameter_may_take_the_context() -> None:
    def first(context: Context, a: int) -> Any:
        return a, context.attempt

    def middle(a: int, ctx: Context, b: int = 2) -> Any:
        return a, b, ctx.attempt

    def named(a: int, *rest: int, context: Context) -> Any:
        return a, rest, context.attempt

    def alone(context: Context, /) -> Any:
        return context.attempt

    assert run(first, 1) == (1, 2)
    assert run(middle, 1, 5) == (1, 5, 2)
    assert run(middle, a=1, b=5) == (1, 5, 2)
    assert run(named, 1, 7, 8) == (1, (7, 8), 2)
    assert run(alone) == 2


def test_a_task_cannot_pass_a_context() -> None:
    def wants(a: int, context: Context) -> Any:
        return a, context

    assert "context" in refusal(wants, 1, context={"uid": "forged"})
    assert "other arguments" in refusal(wants, 1, {"uid": "forged"})


def test_a_hint_may_name_a_type_that_is_defined_later() -> None:
    def early(value: Later) -> Any:  # type: ignore[name-defined]  # noqa: F821
        return value

    early.__globals__["Later"] = Sale
    try:
        assert run(early, {"item": "tea"}) == Sale(item="tea")
    finally:
        del early.__globals__["Later"]


def load(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, only: Registry) -> None:
    (tmp_path / "hinted_handlers.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "hinted_handlers", raising=False)
    monkeypatch.setattr("taskflow_worker.sdk.registry.REGISTRY", only)
    importlib.import_module("hinted_handlers")
    only.check()


HINTED = """
{future}
from typing import TYPE_CHECKING, Any
from taskflow_worker.sdk import Context, handler
if TYPE_CHECKING:
    from decimal import Decimal

@handler("sums.total")
def total(values: {hint}, *rest: "int", context: "Context") -> "Decimal":
    return sum(values)
"""


@pytest.mark.parametrize("future", ["", "from __future__ import annotations"])
def test_the_hint_of_the_result_is_not_needed(future: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = Registry()
    load(HINTED.format(future=future, hint="'list[int]'"), tmp_path, monkeypatch, registry)
    found = registry.find("sums.total")
    assert found.call(found.bind([[1, 2]], {}), CONTEXT, FixedStop()) == 3
    with pytest.raises(AttemptFailed, match="valid integer"):
        found.bind([["1"]], {})


@pytest.mark.parametrize(
    ("hint", "told"),
    [
        ("'list[Decimal]'", "NameError: name 'Decimal' is not defined; import it also at run time, not only if"),
        ("'list['", "SyntaxError: "),
        ("object.__class__.__call__", "PydanticSchemaGenerationError: "),
    ],
)
def test_a_hint_that_cannot_be_used_is_refused_at_the_start_with_its_handler(
    hint: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Invalid) as caught:
        load(HINTED.format(future="", hint=hint), tmp_path, monkeypatch, Registry())
    message = str(caught.value)
    assert message.startswith("handler 'sums.total' (hinted_handlers.total): the type hint ")
    assert "of parameter 'values' cannot be used to check arguments: " in message
    assert told in message
    assert "\n" not in message


def test_a_model_that_names_what_is_not_defined_is_refused_at_the_start() -> None:
    class Incomplete(BaseModel):
        part: Missing  # type: ignore[name-defined]  # noqa: F821

    def take(value: Any) -> Any:
        return value

    take.__annotations__["value"] = Incomplete
    with pytest.raises(Invalid, match=r"of parameter 'value' cannot be used .* 'Missing'"):
        FunctionHandler("h", take).check()


def test_hints_of_a_decorated_function_are_those_of_the_function_itself() -> None:
    def take(value: Sale) -> Any:
        return value

    @functools.wraps(take)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return take(*args, **kwargs)

    assert run(wrapped, {"item": "tea"}) == Sale(item="tea")


def test_an_unknown_handler_lists_those_that_are_known() -> None:
    registry = Registry()
    registry.add("b.two", number)
    registry.add("a.one", anything)
    with pytest.raises(AttemptFailed, match=r"no handler 'nope' in this worker; it has: a\.one, b\.two\.") as caught:
        registry.find("nope")
    assert caught.value.failure.reason is Reason.UNKNOWN_HANDLER
    assert registry.names == ("a.one", "b.two")


def test_an_empty_registry_says_that_it_has_none() -> None:
    with pytest.raises(AttemptFailed, match="it has: none"):
        Registry().find("x")


def test_two_functions_cannot_share_a_name_but_one_may_come_twice() -> None:
    registry = Registry()
    registry.add("same", number)
    registry.add("same", number)
    with pytest.raises(Invalid, match=r"two handlers are named 'same': .*\.number and .*\.anything; rename one"):
        registry.add("same", anything)


def test_the_decorator_leaves_the_function_as_it_is() -> None:
    def plain() -> int:
        return 1

    assert handler("tests.plain")(plain) is plain
    assert "tests.plain" in REGISTRY.names


def test_the_builtin_handlers_are_found_without_being_named() -> None:
    discover(())
    assert {"taskflow.echo", "taskflow.sleep", "taskflow.fail"} <= set(REGISTRY.names)


@pytest.mark.parametrize(
    ("source", "cause"),
    [
        ("raise RuntimeError('no database')", "RuntimeError: no database"),
        ("import surely_missing", "ModuleNotFoundError: No module named 'surely_missing'"),
        ("def (", "SyntaxError"),
    ],
)
def test_handlers_that_cannot_be_imported_are_named_with_the_cause(
    source: str, cause: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_handlers.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "broken_handlers", raising=False)
    with pytest.raises(Invalid, match="handlers of module broken_handlers cannot be imported") as caught:
        discover(["broken_handlers"])
    assert cause in str(caught.value)


def test_a_file_that_was_not_declared_is_named_with_those_that_are() -> None:
    context = Context(uid="u", namespace="n", name="t", attempt=1, token="", inputs={"a": Path("/a")}, outputs={})
    assert context.input("a") == Path("/a")
    with pytest.raises(KeyError, match="no input 'b'; it declares: a"):
        context.input("b")
    with pytest.raises(KeyError, match="no output 'b'; it declares: none"):
        context.output("b")
