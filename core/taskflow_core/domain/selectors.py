"""Label selectors, as Kubernetes writes them: `app=web,tier in (front,back),!canary`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

MAX_CHARS = 1024
MAX_REQUIREMENTS = 16
MAX_VALUES = 32
_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?"
_KEY = rf"(?:[a-z0-9](?:[a-z0-9.-]{{0,251}}[a-z0-9])?/)?{_NAME}"
_VALUE = rf"(?:{_NAME})?"
_REQUIREMENT = re.compile(
    rf"""\s*(?:
        !\s*(?P<absent>{_KEY})
      | (?P<key>{_KEY})\s*(?P<equality>==|=|!=)\s*(?P<value>{_VALUE})
      | (?P<set>{_KEY})\s+(?P<word>in|notin)\s*\((?P<values>[^()]*)\)
      | (?P<present>{_KEY})
    )\s*(?:,|\Z)""",
    re.VERBOSE,
)


class Operator(StrEnum):
    """How a requirement compares."""

    IN = "in"
    NOT_IN = "notin"
    """Also holds where there is no such label, as in Kubernetes."""
    EXISTS = "exists"
    ABSENT = "absent"


@dataclass(frozen=True, slots=True)
class Requirement:
    """One part of a selector."""

    key: str
    operator: Operator
    values: tuple[str, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether these labels fulfil it."""
        if self.operator is Operator.IN:
            return labels.get(self.key) in self.values
        if self.operator is Operator.NOT_IN:
            return labels.get(self.key) not in self.values
        return (self.key in labels) is (self.operator is Operator.EXISTS)


def parse(text: str) -> tuple[Requirement, ...]:
    """The requirements of a selector, all of which have to hold.

    Raises:
        ValueError: it is none, or too large a one.
    """
    if len(text) > MAX_CHARS:
        raise ValueError(f"expected at most {MAX_CHARS} characters, found {len(text)}")
    found: list[Requirement] = []
    place = 0
    while place < len(text) or text.endswith(","):
        match = _REQUIREMENT.match(text, place)
        if match is None:
            raise ValueError(
                "expected key=value, key!=value, 'key in (a,b)', 'key notin (a,b)', key or !key, "
                f"found {text[place:][:64]!r}"
            )
        found.append(_requirement(match))
        place = match.end()
        if len(found) > MAX_REQUIREMENTS:
            raise ValueError(f"expected at most {MAX_REQUIREMENTS} requirements")
        if place == len(text) and not match[0].endswith(","):
            break
    return tuple(found)


def _requirement(match: re.Match[str]) -> Requirement:
    if match["absent"]:
        return Requirement(match["absent"], Operator.ABSENT)
    if match["key"]:
        operator = Operator.NOT_IN if match["equality"] == "!=" else Operator.IN
        return Requirement(match["key"], operator, (match["value"],))
    if match["set"]:
        values = tuple(value.strip() for value in match["values"].split(","))
        wrong = next((value for value in values if not re.fullmatch(_VALUE, value)), None)
        if wrong is not None:
            raise ValueError(f"expected values of labels in the brackets, found {wrong!r}")
        if len(values) > MAX_VALUES:
            raise ValueError(f"expected at most {MAX_VALUES} values in the brackets, found {len(values)}")
        return Requirement(match["set"], Operator.IN if match["word"] == "in" else Operator.NOT_IN, values)
    return Requirement(match["present"], Operator.EXISTS)
