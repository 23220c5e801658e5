from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from taskflow_cli.errors import CliError
from taskflow_cli.output import jsonpath, times
from taskflow_cli.output.tables import Column, Screen, table
from taskflow_cli.output.text import cut, safe, width

VALUE = {
    "kind": "List",
    "a.b": 1,
    "items": [
        {"name": "x", "n": 1, "on": True, "tags": ["p", "q"], "labels": {"app.kubernetes.io/name": "web"}},
        {"name": "y", "n": 2, "on": False, "deep": {"er": None}},
    ],
}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{.kind}", "List"),
        (".kind", "List"),
        ("kind", "List"),
        ("{$.kind}", "List"),
        ("{.items[*].name}", "x y"),
        ("{.items[0].name}-{.items[-1].name}", "x-y"),
        ("{.items[9].name}", ""),
        ("{.items[0].tags}", '["p","q"]'),
        ("{.items[0].tags[*]}", "p q"),
        ("{.items[1].deep}", '{"er":null}'),
        ("{.items[1].deep.er}", ""),
        ("{.nowhere.at.all}", ""),
        ("{.a\\.b}", "1"),
        ("{['a.b']}", "1"),
        ("{.items[0].labels.app\\.kubernetes\\.io/name}", "web"),
        ('{.items[?(@.name=="y")].n}', "2"),
        ("{.items[?(@.name!='y')].n}", "1"),
        ("{.items[?(@.n>=2)].name}", "y"),
        ("{.items[?(@.n<2)].name}", "x"),
        ("{.items[?(@.on==true)].name}", "x"),
        ("{.items[?(@.deep)].name}", "y"),
        ("{.items[?(@.name>1)].name}", ""),
        ('{range .items[*]}{.name}={.n}{"\\n"}{end}done', "x=1\ny=2\ndone"),
        ("{range .items[*]}{range .tags[*]}{.};{end}{end}", "p;q;"),
        ("n: {.items[0].n}", "n: 1"),
    ],
)
def test_jsonpath(template: str, text: str) -> None:
    assert jsonpath.render(template, VALUE) == text


@pytest.mark.parametrize(
    "template", ["{.a", "{.a[}", "{.a[?(@.b==c)]}", "{range .items[*]}", "{end}", "{.a b}", "{..a}", "{.a[1:2]}"]
)
def test_a_jsonpath_that_cannot_be_read(template: str) -> None:
    with pytest.raises(CliError, match="invalid JSONPath"):
        jsonpath.render(template, VALUE)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (119, "119s"), (120, "2m"), (125, "2m5s"), (3599, "59m"), (7199, "119m"), (4 * 3600 + 60, "4h1m"),
     (30 * 3600, "30h"), (3 * 86400, "3d"), (-5, "0s")],
)  # fmt: skip
def test_ages_are_written_as_kubectl_does(seconds: int, text: str) -> None:
    assert times.duration(timedelta(seconds=seconds)) == text


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("1h30m", 5400), ("1.5h", 5400), ("2d", 172800)]
)
def test_durations(text: str, seconds: float) -> None:
    assert times.seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "5 m", "-3s", "1w", "1h30"])
def test_no_durations(text: str) -> None:
    with pytest.raises(CliError, match="expected a duration"):
        times.seconds_of(text)


def test_text_of_others_is_escaped_and_measured() -> None:
    assert safe("a\x1b[2J\r\nb\u202ec\u2028") == "a\\x1b[2J\\r\\nb\\u202ec\\u2028"
    assert safe("a\n\tb", lines=True) == "a\n\tb"
    assert safe("Köln 日本 🙂") == "Köln 日本 🙂"
    assert width("日本é") == 5
    assert cut("日本語", 5) == "日本…"
    assert cut("abc", 3) == "abc"


COLUMNS = (
    Column("NAME", lambda row, _: row["name"], shrinks=True),
    Column("N", lambda row, _: str(row["n"]), colour=lambda _: 32),
    Column("NOTE", lambda row, _: row["note"], wide=True, shrinks=True),
)
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def test_a_table_is_as_wide_as_its_cells_but_no_wider_than_the_terminal() -> None:
    rows = [{"name": "a" * 30, "n": 1, "note": "b" * 20}, {"name": "c", "n": 22, "note": ""}]
    assert table(COLUMNS, rows, NOW, Screen()).splitlines()[0] == "NAME" + " " * 29 + "N"
    lines = table(COLUMNS, rows, NOW, Screen(40), wide=True).splitlines()
    assert max(map(len, lines)) == 40
    assert lines[1] == "a" * 16 + "…  1   " + "b" * 16 + "…"
    assert lines[2] == "c" + " " * 18 + "22"
    # There is a least that is shown even so.
    assert len(table(COLUMNS, rows, NOW, Screen(5), wide=True).splitlines()[1]) == 22
    assert table(COLUMNS, [], NOW, Screen()) == ""


def test_colours_take_no_room() -> None:
    rows = [{"name": "a", "n": 1, "note": ""}]
    assert table(COLUMNS, rows, NOW, Screen(40, colour=True)).splitlines()[1] == "a      \x1b[32m1\x1b[0m"
