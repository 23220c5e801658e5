"""The API server's verdict on arguments is that of `jsonschema`, for random schemas of the subset and random values."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
from bench.templates import dry_run
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from taskflow_core.errors import Invalid
from taskflow_core.kube.client import KubeClient
from tests.integration.crds.conftest import Cluster
from tests.integration.templates.conftest import apply, template

pytestmark = pytest.mark.integration
Schema = dict[str, Any]
HANDLERS, VALUES = 15, 10
_numbers = itertools.count()

NAMES = st.sampled_from(["a", "b", "c", "long_name", "with-dash", "with.dot", "ä", "type", "has space"])
NUMBERS = st.one_of(
    st.integers(-3, 3),
    st.sampled_from([0.5, -0.5, 1.0, 2.0, -2.0, 1e300, -1e300, 2**53 - 1, 1 - 2**53, 1e16, 0.1]),
)
STRINGS = st.sampled_from(["", "a", "ab", "abc", "aB1", "ä", "日本語", "x" * 9, "1", "a\nb"])
SCALARS = st.one_of(NUMBERS, STRINGS, st.booleans(), st.none())
TYPES = st.sampled_from(["array", "boolean", "integer", "null", "number", "object", "string"])
# Both engines read these alike.
PATTERNS = st.sampled_from(["^[a-z]+$", "a", "^a?b*c", "[0-9]", "^(ab|a)(c|bcd)*$", "^[^a]{1,3}$", "^$"])


def values(depth: int = 3) -> st.SearchStrategy[Any]:
    if depth == 0:
        return SCALARS
    below = values(depth - 1)
    return st.one_of(SCALARS, st.lists(below, max_size=4), st.dictionaries(NAMES, below, max_size=4))


@st.composite
def schemas(draw: st.DrawFn, depth: int = 3) -> Schema:
    found: Schema = {}
    if draw(st.booleans()):
        found["type"] = draw(st.one_of(TYPES, st.lists(TYPES, min_size=1, max_size=3, unique=True)))
    some: dict[str, st.SearchStrategy[Any]] = {
        "enum": st.lists(SCALARS, min_size=1, max_size=5),
        "minimum": NUMBERS,
        "maximum": NUMBERS,
        "exclusiveMinimum": NUMBERS,
        "exclusiveMaximum": NUMBERS,
        "minLength": st.integers(0, 3),
        "maxLength": st.integers(0, 3),
        "pattern": PATTERNS,
        "minItems": st.integers(0, 3),
        "maxItems": st.integers(0, 3),
        "required": st.lists(NAMES, max_size=2, unique=True),
        "additionalProperties": st.booleans(),
    }
    if depth:
        some["properties"] = st.dictionaries(NAMES, schemas(depth=depth - 1), max_size=4)
        some["items"] = schemas(depth=depth - 1)
    # Few keywords at a time: with all of them nothing would be right.
    for name in draw(st.lists(st.sampled_from(sorted(some)), max_size=3, unique=True)):
        found[name] = draw(some[name])
    return found


def near(schema: Schema) -> st.SearchStrategy[Any]:
    """Values of which many are at the bounds of a schema."""
    bounds = [schema[name] for name in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum") if name in schema]
    found: list[st.SearchStrategy[Any]] = [values(1)]
    if bounds:
        # Beyond 2^53 the API server does not compare exactly.
        beside = [number for each in bounds if abs(each) < 2**53 for number in (each - 1, each + 1)]
        found.append(st.sampled_from(bounds + beside))
    if "enum" in schema:
        found.append(st.sampled_from(schema["enum"]))
    if "minLength" in schema or "maxLength" in schema or "pattern" in schema:
        found.append(STRINGS)
    if "minItems" in schema or "maxItems" in schema or "items" in schema:
        found.append(st.lists(near(schema.get("items", {})), max_size=4))
    if "properties" in schema or "required" in schema:
        known = {name: near(each) for name, each in schema.get("properties", {}).items()}
        others = {name: SCALARS for name in schema.get("required", ()) if name not in known}
        found.append(st.fixed_dictionaries({}, optional=known | others))
    return st.one_of(found)


@st.composite
def handlers(draw: st.DrawFn) -> tuple[Schema, list[dict[str, Any]]]:
    """A schema of kwargs, and kwargs of which some are right."""
    properties = draw(st.dictionaries(NAMES, schemas(depth=2), min_size=1, max_size=4))
    found: Schema = {"type": "object", "properties": properties}
    if draw(st.booleans()):
        found["additionalProperties"] = draw(st.booleans())
    if draw(st.booleans()):
        found["required"] = draw(st.lists(st.sampled_from(sorted(properties)), max_size=2, unique=True))
    close = st.fixed_dictionaries({}, optional={name: near(each) for name, each in properties.items()})
    any_of_them = st.one_of(close, close, st.dictionaries(NAMES, values(), max_size=4))
    return found, draw(st.lists(any_of_them, min_size=VALUES, max_size=VALUES))


@pytest.fixture
def admin(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    monkeypatch.setenv("KUBECONFIG", str(cluster.stack.kubeconfig))
    yield cluster
    cluster.kubectl("delete", "tasktemplates.taskflow.dev", "--all")


async def _refused(asked: list[tuple[str, dict[str, Any]]]) -> list[bool]:
    kube = await KubeClient.connect(connections=4)

    async def one(handler: str, kwargs: dict[str, Any]) -> bool:
        try:
            await dry_run(kube, "default", handler, kwargs)
        except Invalid as error:
            if "TaskTemplate random refuses" not in str(error):
                raise
            return True
        return False

    try:
        return await asyncio.gather(*(one(*each) for each in asked))
    finally:
        await kube.close()


def test_the_verdict_of_the_api_server_is_that_of_jsonschema(admin: Cluster) -> None:
    seen: set[bool] = set()

    # Not smaller examples after a failure: each needs a template, and the assertion names the cases.
    @settings(
        max_examples=20,
        deadline=None,
        # The same examples for each change of the code.
        derandomize=True,
        suppress_health_check=list(HealthCheck),
        database=None,
        phases=(Phase.generate,),
    )
    @given(st.lists(handlers(), min_size=HANDLERS, max_size=HANDLERS))
    def agree(drawn: list[tuple[Schema, list[dict[str, Any]]]]) -> None:
        named = [(f"random.h{next(_numbers)}", schema, kwargs) for schema, kwargs in drawn]
        apply(admin, template("random", *({"name": name, "kwargs": schema} for name, schema, _ in named)))
        asked = [(name, each) for name, _, kwargs in named for each in kwargs]
        expected = [
            not jsonschema.Draft202012Validator(schema).is_valid(each) for _, schema, kwargs in named for each in kwargs
        ]
        found = asyncio.run(_refused(asked))
        seen.update(found)
        schema_of = {name: schema for name, schema, _ in named}
        wrong = [
            (schema_of[name], kwargs, "refused" if got else "admitted")
            for (name, kwargs), got, wanted in zip(asked, found, expected, strict=True)
            if got != wanted
        ]
        assert wrong == []

    agree()
    assert seen == {True, False}
