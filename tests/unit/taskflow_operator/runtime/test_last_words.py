from __future__ import annotations

import json

import pytest

from taskflow_operator.runtime.last_words import MAX_CHARS, last_words

TRACEBACK = """2026-01-01 starting
Traceback (most recent call last):
  File "/app/main.py", line 3, in <module>
    import weather_handlers
ModuleNotFoundError: No module named 'weather_handlers'
"""


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("", ""),
        ("\n \n", ""),
        (TRACEBACK, "ModuleNotFoundError: No module named 'weather_handlers'"),
        ("one\ntwo\nthree\nfour\n", "two / three / four"),
        ("usage: run\n  --fast\nbad option", "usage: run / --fast / bad option"),
        (json.dumps({"event": "broken", "error": "no disk", "level": "error"}), "broken: no disk"),
        (
            json.dumps({"event": "died", "exception": TRACEBACK}),
            "died: ModuleNotFoundError: No module named 'weather_handlers'",
        ),
        ("{not json", "{not json"),
        ("no disk\nno disk\nprogram: no disk\n", "program: no disk"),
        ("[1]\n{}", "[1] / {}"),
    ],
)
def test_the_end_of_the_output_is_what_a_container_said_last(said: str, words: str) -> None:
    assert last_words(said) == words


def test_the_end_of_a_long_line_is_kept() -> None:
    words = last_words("x" * 5000 + "the cause")
    assert len(words) == MAX_CHARS
    assert words.endswith("xthe cause")


def test_neither_terminal_controls_nor_logins_are_repeated() -> None:
    words = last_words("\x1b[31mcannot connect to redis://user:secret@redis:6379/0")
    assert "\x1b" not in words
    assert words.endswith("cannot connect to redis://***@redis:6379/0")
