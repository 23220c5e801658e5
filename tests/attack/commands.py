"""Random commands of all kinds that a worker's login admits, from what Redis itself says of its rights."""

from __future__ import annotations

import json
import random
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

Arguments = list[bytes]
_NEVER = frozenset(
    {"quit", "reset", "hello", "auth", "client|setname", "client|reply", "client|no-evict", "client|pause"}
)
"""Of the connection itself: they would only end it."""
_SIZES = (0, 1, 7, 40, 300, 5_000, 70_000, 1_000_000)
_JSON: Sequence[Callable[[random.Random], Any]] = (
    lambda dice: dice.choice([0, -1, 1, 2**31, 2**63, 10**20, 1e308, True, None, "", "x", "\x1b[31m", "\ud800"]),
    lambda dice: {
        "reason": dice.choice(["WorkerLost", "HandlerError", "Nonsense", 5]),
        "runMs": dice.choice([1, -1, 10**30, "x"]),
    },
    lambda dice: {
        "result": "r" * dice.choice(_SIZES),
        "outputs": [{"name": "o", "key": "victim/secret.txt", "sizeBytes": 1}],
    },
    lambda dice: {
        "total": dice.choice([10**20, -1, 0, 5]),
        "source": {"key": "victim/secret.txt", "format": "JSONLines"},
    },
    lambda dice: {
        "ok": dice.choice(["0-5", "9-1", "0-99999999999999999999", ","]),
        "results": [[0, {}]],
        "errors": [{}],
    },
    lambda dice: {
        "progress": {"done": dice.choice([1, -1, 10**40]), "total": "x"},
        "checkpoint": "c" * dice.choice(_SIZES),
    },
)


@dataclass(frozen=True)
class Right:
    """What a selector of the login admits."""

    patterns: tuple[str, ...]
    commands: tuple[str, ...]


def rights(user: dict[str, Any]) -> list[Right]:
    """What `ACL GETUSER` says of a user: the root rights, and those of each selector."""
    parts = [user, *(_mapping(each) for each in user.get("selectors") or ())]
    found = []
    for part in parts:
        commands = [_text(each) for each in _words(part["commands"])]
        patterns = [_text(each) for each in _words(part["keys"])]
        admitted = tuple(each[1:] for each in commands if each.startswith("+") and "@" not in each)
        names = tuple(each.partition("~")[2] for each in patterns)
        if admitted:
            found.append(Right(names, admitted))
    return found


class Generator:
    """Makes commands.

    Args:
        dice: decides everything.
        admitted: see `rights`.
        known: texts that may mean something: uids, tokens, members, names of namespaces.
        digests: of scripts that Redis has.
    """

    def __init__(
        self, dice: random.Random, admitted: Sequence[Right], known: Sequence[str], digests: Sequence[str]
    ) -> None:
        self._digests = digests
        self._dice = dice
        self._admitted = admitted
        self._texts = known

    def command(self) -> Arguments:
        """A command that Redis may refuse."""
        dice = self._dice
        right = dice.choice(self._admitted)
        name = dice.choice([each for each in right.commands if each not in _NEVER] or ["ping"])
        words = [each.encode() for each in name.split("|")]
        if name == "evalsha":
            return self._script(right, words)
        if name == "xadd":
            return [*words, self._key(right), *self._options(), *self._event()]
        key = [self._key(right)] if right.patterns else []
        if name in ("zadd", "hset"):
            pairs = [self._value() for _ in range(2 * dice.randint(1, 20))]
            if name == "zadd":
                pairs[0::2] = [dice.choice([b"1", b"-inf", b"+inf", b"nan", b"1e308", b"9" * 20]) for _ in pairs[0::2]]
            return [*words, *key, *pairs]
        if name in ("brpop", "blpop"):
            return [*words, *key, b"0.01"]
        return [*words, *key, *(self._value() for _ in range(dice.choice([0, 1, 1, 2, 3, 8])))]

    def _script(self, right: Right, words: Arguments) -> Arguments:
        dice = self._dice
        keys = [self._key(right) for _ in range(dice.randint(0, 6))]
        digest = dice.choice(self._digests).encode()
        return [*words, digest, str(len(keys)).encode(), *keys, *(self._value() for _ in range(dice.randint(0, 13)))]

    def _options(self) -> Arguments:
        dice = self._dice
        found: Arguments = []
        if dice.random() < 0.1:
            found += [b"MAXLEN", str(dice.choice([0, 1, 100])).encode()]
        last = [b"18446744073709551615-18446744073709551615", b"9999999999999-0", b"0-1"]
        found.append(dice.choice(last) if dice.random() < 0.01 else b"*")
        return found

    def _event(self) -> Arguments:
        dice = self._dice
        fields: dict[bytes, bytes] = {
            b"k": dice.choice(
                [
                    b"started",
                    b"progress",
                    b"succeeded",
                    b"failed",
                    b"cancelled",
                    b"released",
                    b"lost",
                    b"settled",
                    b"queued",
                    b"deleted",
                    b"pending",
                    b"duplicate",
                    b"stale",
                ]
            ),
            b"uid": self._known(),
            b"att": dice.choice([b"1", b"2", b"1:0", b"1:-1", b"0", b"-1", b"9" * 30, b"x"]),
            b"tok": self._known(),
            b"w": dice.choice([b"main-1:ab", b"\x1b[2J", b"|", self._value()]),
            b"ts": dice.choice([b"1", b"0", b"-5", b"9" * 14, b"9" * 40, b"x"]),
            b"p": json.dumps(dice.choice(_JSON)(dice)).encode("utf-8", "surrogatepass"),
        }
        for name in list(fields):
            if dice.random() < 0.1:
                fields[name] = self._value()
            elif dice.random() < 0.05:
                del fields[name]
        return [each for pair in (fields or {b"x": b"y"}).items() for each in pair]

    def _known(self) -> bytes:
        return self._dice.choice(self._texts).encode() if self._texts and self._dice.random() < 0.8 else self._value()

    def _key(self, right: Right) -> bytes:
        pattern = self._dice.choice(right.patterns) if right.patterns else "x"
        filled = pattern.replace("*", self._dice.choice([*self._texts[-20:], "x", "\x00", "a:1"]))
        if self._dice.random() < 0.03:
            filled = filled.replace("evil", "victim")
        return filled.encode("utf-8", "surrogatepass")

    def _value(self) -> bytes:
        dice = self._dice
        kind = dice.randint(0, 4)
        if kind == 0:
            return dice.randbytes(dice.choice(_SIZES[:6]))
        if kind == 1:
            return "".join(dice.choices(string.printable, k=dice.choice(_SIZES[:5]))).encode()
        if kind == 2:
            return json.dumps(dice.choice(_JSON)(dice)).encode("utf-8", "surrogatepass")
        if kind == 3:
            return b"[" * dice.choice(_SIZES[:7])
        return dice.choice(self._texts).encode() if self._texts else b"1"


def _words(value: Any) -> list[Any]:
    return value.split() if isinstance(value, str | bytes) else list(value)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _mapping(value: Any) -> dict[str, Any]:
    if isinstance(value, dict):
        return {_text(key): each for key, each in value.items()}
    return {_text(value[place]): value[place + 1] for place in range(0, len(value), 2)}
