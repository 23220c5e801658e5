"""Manifests by chance, from a CRD's own schema: most fit it, at its very edges, the others miss it in one or two
places.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from typing import Any

Schema = dict[str, Any]

ALPHABETS = ("a", "abz019", "abz-09", "aZ_.:-9", "ab/c.-_0")
WILD = "aZ0 /.\\'\"<>%$\t\n\r\x00\x01\x1f\x7f\x80\u00e9\u0301\u200b\u202e\u2028\ufeff\uffff\ud800\U0001f600{}[]"
NUMBERS: list[Any] = [
    0,
    -1,
    1,
    2**31 - 1,
    2**31,
    -(2**31) - 1,
    2**53 + 1,
    2**63 - 1,
    2**63,
    -(2**63),
    2**64,
    10**30,
    10**400,
]
FLOATS: list[Any] = [0.5, -0.0, 1.0, 1e-320, 1e308, -1e308, float("inf"), float("nan")]
TIMES = (
    "1970-01-01T00:00:00Z",
    "2026-01-01T00:00:00Z",
    "2024-02-29T23:59:59.999999999Z",
    "9998-12-31T23:59:59Z",
    "2026-01-01T00:00:00+23:59",
    "2026-01-01T00:00:00-23:59",
    "1970-01-01T00:00:00+00:00",
    "1970-01-01T00:00:00.0000000000001Z",
    "9998-12-31T23:59:59-23:59",
)
ODD_TIMES = (
    "0000-01-01T00:00:00Z",
    "0001-01-01T00:00:00Z",
    "0001-01-01T00:00:00+01:00",
    "1969-12-31T23:59:59Z",
    "9999-12-31T23:59:59Z",
    "9999-12-31T23:59:59-01:00",
    "10000-01-01T00:00:00Z",
    "-0001-01-01T00:00:00Z",
    "2016-12-31T23:59:60Z",
    "2026-02-29T00:00:00Z",
    "2026-01-01T24:00:00Z",
    "2026-01-01t00:00:00z",
    "2026-01-01T00:00:00",
    "2026-01-01",
    "2026-01-01T00:00:00x5Z",
    "2026-01-01T00:00:00+99:99",
    "now",
    "",
    "0",
    "2026-01-01T00:00:00Z\n",
    "\uff12\uff10\uff12\uff16-01-01T00:00:00Z",
)
ODD_KEYS = ("", "self", "context", "a.b", "__proto__", "\x00", "é", "a b", "metadata", "x" * 300)
POD_KEYS = (
    "containers",
    "initContainers",
    "volumes",
    "securityContext",
    "terminationGracePeriodSeconds",
    "name",
    "env",
)
DEPTHS = (47, 48, 49, 50, 51, 199, 200, 201, 500, 800)
NAMES = ("{}", "{}.b.c", "0{}", "{}" + "x" * 200)
ODD_NAMES = ("-{}", "{}-", "{}..a", "UP{}", "{}_x", "{} x", "{}\x00", "é{}", "{}/x", "%2e{}", "{}" + "x" * 260, "")


class Manifests:
    """One stream of manifests of a kind; the same seed gives the same ones."""

    def __init__(self, crd: Schema, seed: int) -> None:
        names, version = crd["spec"]["names"], crd["spec"]["versions"][0]
        self._head = {"apiVersion": f"{crd['spec']['group']}/{version['name']}", "kind": names["kind"]}
        self._spec: Schema = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
        self._random = random.Random(seed)
        self._share = 0.25 if names["kind"] == "Task" else 0.7
        # Kopf copies WorkerPools recursively, and Python's stack bounds that.
        self._depths = DEPTHS if names["kind"] == "Task" else DEPTHS[:5]
        self._keys = ODD_KEYS + (POD_KEYS if names["kind"] == "WorkerPool" else ())

    def manifest(self, number: int) -> dict[str, Any]:
        """The next one; the number is in its name."""
        spec = self._valid(self._spec)
        metadata: dict[str, Any] = {"name": self._pick(NAMES if self._chance(0.2) else ("{}",)).format(f"f{number}")}
        body = {**self._head, "metadata": metadata, "spec": spec}
        if self._chance(0.1):
            metadata["annotations"] = {"taskflow.dev/traceparent": self._pick(("", "00-0-0-0", self._wild(40)))}
        if self._chance(0.02):
            body["status"] = {"phase": "Succeeded", "attempt": 7, "conditions": []}
        if self._chance(0.45):
            for _ in range(self._pick((1, 1, 2))):
                self._spoil(body, number)
        return body

    def _chance(self, share: float) -> bool:
        return self._random.random() < share

    def _pick(self, choices: Any) -> Any:
        return self._random.choice(choices)

    def _wild(self, length: int) -> str:
        return "".join(self._random.choice(WILD) for _ in range(length))

    def _valid(self, schema: Schema) -> Any:
        if "enum" in schema:
            return self._pick(schema["enum"])
        make: dict[str, Callable[[Schema], Any]] = {
            "object": self._object,
            "array": self._array,
            "string": self._string,
            "integer": self._integer,
            "boolean": lambda _: self._chance(0.3),
        }
        return make.get(schema.get("type", ""), self._anything)(schema)

    def _anything(self, _: Schema) -> Any:
        return self._any(3)

    def _object(self, schema: Schema) -> Any:
        if "properties" not in schema:
            return {self._key(): self._any(3) for _ in range(self._length(schema, "Properties", 3))}
        required = schema.get("required", ())
        wanted = [name for name in schema["properties"] if name in required or self._chance(self._share)]
        return {name: self._valid(schema["properties"][name]) for name in wanted}

    def _key(self) -> str:
        if self._chance(0.3):
            return str(self._random.choice(self._keys))
        return self._text("abc_9", self._random.randint(1, 8))

    def _array(self, schema: Schema) -> Any:
        found = [self._valid(schema["items"]) for _ in range(self._length(schema, "Items", 3))]
        for number, each in enumerate(found):
            # Lists of the types map and set have no doubles.
            if isinstance(each, dict) and "name" in each:
                each["name"] = f"n{number}" + each["name"][2:]
        return list(dict.fromkeys(found)) if schema.get("x-kubernetes-list-type") == "set" else found

    def _length(self, schema: Schema, what: str, usual: int) -> int:
        least, most = schema.get(f"min{what}", 0), schema.get(f"max{what}", usual)
        return (
            self._pick((least, most))
            if self._chance(0.1)
            else self._random.randint(least, max(min(most, usual), least))
        )

    def _text(self, alphabet: str, length: int) -> str:
        return "".join(self._random.choice(alphabet) for _ in range(length))

    def _string(self, schema: Schema) -> str:
        if schema.get("format") == "date-time":
            return str(self._pick(TIMES))
        pattern: str | None = schema.get("pattern")
        for _ in range(20):
            length = self._length(schema, "Length", 12)
            text = self._wild(length) if pattern is None else self._text(self._pick(ALPHABETS), length)
            if pattern is None or re.search(pattern, text):
                return text
        return "a/b" if "/" in str(pattern) else "a"

    def _integer(self, schema: Schema) -> int:
        least, most = schema.get("minimum", 0), schema.get("maximum", 100)
        return int(self._pick((least, least + 1, most - 1, most, self._random.randint(least, most))))

    def _any(self, levels: int) -> Any:
        """Any JSON."""
        if levels and self._chance(0.4):
            if self._chance(0.5):
                return [self._any(levels - 1) for _ in range(self._random.randint(0, 4))]
            return {self._key(): self._any(levels - 1) for _ in range(self._random.randint(0, 4))}
        if self._chance(0.04):
            return self._deep(self._pick(self._depths))
        if self._chance(0.03):
            return "x" * self._pick((4096, 8100, 8187, 8192, 8193, 9000, 100_000))
        return self._pick((None, True, False, "", self._wild(9), *NUMBERS[:-1], *FLOATS[:-2]))

    def _deep(self, levels: int) -> Any:
        value: Any = None
        for _ in range(levels):
            value = [value] if self._chance(0.5) else {"a": value}
        return value

    def _spoil(self, body: dict[str, Any], number: int) -> None:
        """Break one thing, of what is there or of what could be."""
        choice = self._random.random()
        if choice < 0.10 and isinstance(body["metadata"], dict):
            self._spoil_metadata(body["metadata"], number)
        elif choice < 0.12:
            body[self._pick(("kind", "apiVersion", "metadata", "spec", "unknown"))] = self._pick((None, "", 5, [], {}))
        elif isinstance(body.get("spec"), dict):
            self._spoil_field(body["spec"], self._spec)

    def _spoil_metadata(self, metadata: dict[str, Any], number: int) -> None:
        if self._chance(0.6):
            metadata["name"] = self._pick(ODD_NAMES).format(f"f{number}")
        else:
            key, value = self._pick(("a", "", "a/b/c", "x" * 64, "é")), self._pick(("v", "x" * 64, 5, None, "\n"))
            metadata["labels"] = {key: value}

    def _spoil_field(self, holder: dict[str, Any], schema: Schema) -> None:
        name = self._pick(sorted(schema["properties"]))
        inner = schema["properties"][name]
        if self._chance(0.05):
            holder.pop(name, None)
        elif self._chance(0.05):
            holder[self._pick((*ODD_KEYS, name + "s", name.upper()))] = self._any(1)
        elif self._chance(0.4) and inner.get("type") == "object" and "properties" in inner:
            holder[name] = self._valid(inner)
            self._spoil_field(holder[name], inner)
        elif self._chance(0.5) and inner.get("type") == "array" and "properties" in inner["items"]:
            holder[name] = [self._valid(inner["items"])]
            self._spoil_field(holder[name][0], inner["items"])
        else:
            holder[name] = self._wrong(inner)

    def _wrong(self, schema: Schema) -> Any:
        """Just outside the schema, or something else altogether."""
        kind = schema.get("type")
        if self._chance(0.3):
            return self._pick((None, "", "1", 1, -1, 1.5, True, [], {}, [None], {"a": None}, *NUMBERS, *FLOATS))
        if kind == "integer":
            return self._pick((schema.get("minimum", 0) - 1, schema.get("maximum", 0) + 1, *NUMBERS, 1.0, 1e3))
        if schema.get("format") == "date-time":
            return self._pick(ODD_TIMES)
        if kind == "string":
            most = schema.get("maxLength", 64)
            return self._pick(
                ("", "a" * (most + 1), "\U0001f600" * most, self._wild(8), "a" * 8 + "\n", "../a", "a//b", "a/")
            )
        if kind == "array":
            each = self._valid(schema["items"])
            return self._pick(([each for _ in range(schema.get("maxItems", 8) + 1)], [each, each], [], [None]))
        return {f"k{number}": 1 for number in range(self._pick((0, 64, 65, 2000)))}
