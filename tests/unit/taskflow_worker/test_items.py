from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskflow_core.domain.array import ItemsFormat
from taskflow_core.domain.chunks import Counted, Source
from taskflow_core.domain.events import Failure
from taskflow_core.domain.phases import Reason
from taskflow_core.domain.ranges import RangeSet
from taskflow_worker.attempts import items
from taskflow_worker.attempts.items import ItemReader, Unreadable, count_items
from taskflow_worker.sdk.failures import AttemptFailed
from tests.builders import make_message
from tests.objects import Objects

KEY = "team-a/in"


def count(objects: Objects, kind: ItemsFormat = ItemsFormat.JSON_LINES) -> Counted:
    counted = count_items(make_message(), Source(key=KEY, format=kind), objects, patience=0)
    assert isinstance(counted, Counted), counted
    return counted


def read(objects: Objects, counted: Counted, indices: str) -> list[Any]:
    return list(ItemReader().read(counted.source, RangeSet.parse(indices), objects, patience=0))


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(st.one_of(st.integers(), st.text(max_size=20), st.lists(st.booleans(), max_size=3)), max_size=40),
    piece=st.integers(1, 50),
    data=st.data(),
)
def test_json_lines_are_read_back_wherever_pieces_and_blocks_end(
    values: list[Any], piece: int, data: st.DataObject
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(items, "BLOCK_ITEMS", data.draw(st.integers(1, 10)))
        content = "".join(json.dumps(value) + data.draw(st.sampled_from(["\n", "\r\n", "\n\n"])) for value in values)
        objects = Objects({KEY: content.encode()}, piece=piece)
        counted = count(objects)
        assert counted.total == len(values)
        if values:
            wanted = sorted(data.draw(st.sets(st.integers(0, len(values) - 1), min_size=1)))
            assert read(objects, counted, str(RangeSet.of(wanted))) == [values[index] for index in wanted]


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.tuples(st.text("ab\",\n '", max_size=8), st.text('xyz\r\n"', max_size=8)), max_size=20),
    piece=st.integers(1, 30),
    block=st.integers(1, 5),
)
def test_csv_is_read_back_whatever_is_quoted(rows: list[tuple[str, str]], piece: int, block: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(items, "BLOCK_ITEMS", block)
        text = io.StringIO(newline="")
        writer = csv.writer(text, quoting=csv.QUOTE_ALL)
        writer.writerow(["left", "right"])
        writer.writerows(rows)
        objects = Objects({KEY: text.getvalue().encode()}, piece=piece)
        counted = count(objects, ItemsFormat.CSV)
        assert counted.total == len(rows)
        if rows:
            found = read(objects, counted, f"0-{len(rows) - 1}")
            assert found == [{"left": left, "right": right} for left, right in rows]


def test_consecutive_chunks_share_one_read_of_a_block() -> None:
    objects = Objects({KEY: b"".join(b"%d\n" % number for number in range(50_000))})
    counted = count(objects)
    reader = ItemReader()
    for start in range(20_000, 20_500, 100):
        indices = RangeSet([(start, start + 99)])
        assert list(reader.read(counted.source, indices, objects, patience=0)) == list(indices)
    assert len(objects.parts) == 1
    assert objects.parts[0][2] < 100_000


def test_a_byte_order_mark_is_skipped() -> None:
    objects = Objects({KEY: "\ufeffid\n1\n".encode()})
    assert read(objects, count(objects, ItemsFormat.CSV), "0") == [{"id": "1"}]


def test_a_row_of_the_wrong_length_is_unreadable() -> None:
    objects = Objects({KEY: b"a,b\n1,2\n1\n"})
    good, bad = read(objects, count(objects, ItemsFormat.CSV), "0-1")
    assert good == {"a": "1", "b": "2"}
    assert bad == Unreadable("line 3: the row has 1 fields, the header 2")


def refusal(content: bytes, kind: ItemsFormat) -> str:
    ended = count_items(make_message(), Source(key=KEY, format=kind), Objects({KEY: content}), patience=0)
    assert isinstance(ended, Failure), ended
    assert ended.reason is Reason.ITEMS_INVALID
    return ended.message


CSV, LINES = ItemsFormat.CSV, ItemsFormat.JSON_LINES


@pytest.mark.parametrize(
    ("content", "kind", "told"),
    [
        (b"a,a,b\n1,2,3\n", CSV, "line 1: the header names the column 'a' twice"),
        (b'\n"x\ny",b,"x\ny"\n', CSV, r"line 2: the header names the column 'x\ny' twice"),
        (b"a,b\r1,2\r3,4\r", CSV, "line 1: a carriage return ends it alone"),
        (b"a,b\n1,2\r3,4\n", CSV, "line 2: a carriage return ends it alone"),
        pytest.param(b"a,b\r" * 300_000, CSV, "line 1: a carriage return ends it alone", id="long"),
        (b'{"a":1}\r{"a":2}\r', LINES, "line 1: a carriage return ends it alone"),
        ("a,b\n1,2\n".encode("utf-16"), CSV, "line 1: the text is UTF-16 or UTF-32, expected UTF-8"),
        ("a,b\n1,2\n".encode("utf-16-le"), CSV, "line 1: the text is UTF-16 or UTF-32, expected UTF-8"),
        ("1\n2\n".encode("utf-16"), LINES, "line 1: the text is UTF-16 or UTF-32, expected UTF-8"),
        ("1\n2\n".encode("utf-16-be"), LINES, "line 1: the text is UTF-16 or UTF-32, expected UTF-8"),
        ("1\n2\n".encode("utf-32"), LINES, "line 1: the text is UTF-16 or UTF-32, expected UTF-8"),
        ("\u00e9,b\n".encode("latin-1"), CSV, "line 1: the header is not CSV: byte 1 of the line is 0xe9"),
        (b'a,b\n1,2\n3,"4\n5,6\n', CSV, "line 3: the row opens a quote that is never closed"),
        (b'a,b\n1,2\n3,"4', CSV, "line 3: the row opens a quote that is never closed"),
    ],
)
def test_a_file_that_would_be_read_as_other_items_is_refused_with_its_line(
    content: bytes, kind: ItemsFormat, told: str
) -> None:
    message = refusal(content, kind)
    assert message.startswith(f"array.itemsFrom: '{KEY}': ")
    assert told in message


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b"NaN", "NaN is no JSON number"),
        (b"[-Infinity]", "-Infinity is no JSON number"),
        (b'{"a": 1e999}', "1e999 is larger than any 64-bit float"),
        (b'[{"a": 1, "a": 2}]', "the key 'a' occurs twice in an object"),
        (b"\xe9", "byte 1 of the line is 0xe9, which is not UTF-8"),
        (b'{"a"', "column 5: the item is not JSON"),
    ],
)
def test_a_line_that_is_no_json_value_is_unreadable_with_its_line(
    line: bytes, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(items, "BLOCK_ITEMS", 2)
    objects = Objects({KEY: b"1\n\n2\n3.5e300\n" + line + b"\n4\n"})
    found = read(objects, count(objects), "0-4")
    assert found[:3] + found[4:] == [1, 2, 3.5e300, 4]
    assert isinstance(found[3], Unreadable)
    assert found[3].problem.startswith("line 5")
    assert told in found[3].problem


def test_a_line_is_counted_over_rows_of_several_lines_and_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(items, "BLOCK_ITEMS", 1)
    objects = Objects({KEY: b'a,b\n"1\r\n2\r3",4\n\n5\n'}, piece=3)
    assert read(objects, count(objects, CSV), "0-1") == [
        {"a": "1\r\n2\r3", "b": "4"},
        Unreadable("line 5: the row has 1 fields, the header 2"),
    ]


@pytest.mark.parametrize("delimiter", [";", "\t", "|", " ", "\u00a6"])
def test_another_delimiter_may_be_said(delimiter: str) -> None:
    rows = f'a{delimiter}"b{delimiter}c"\n1,5{delimiter}2\n'
    objects = Objects({KEY: rows.encode()})
    counted = count_items(make_message(), Source(key=KEY, format=CSV, delimiter=delimiter), objects, patience=0)
    assert isinstance(counted, Counted), counted
    assert read(objects, counted, "0") == [{"a": "1,5", f"b{delimiter}c": "2"}]


def test_carriage_returns_within_quotes_are_looked_at_once() -> None:
    # If each had all before it looked at, this would take minutes.
    objects = Objects({KEY: b'a\n"' + b"\r" * (items.MAX_RECORD_BYTES - 100) + b'"\n'}, piece=65_536)
    assert count(objects, CSV).total == 1


def test_too_many_or_too_large_items_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(items, "MAX_ARRAY_ITEMS", 5)
    source = Source(key=KEY, format=ItemsFormat.JSON_LINES)
    many = count_items(make_message(), source, Objects({KEY: b"1\n" * 6}), patience=0)
    large = count_items(make_message(), source, Objects({KEY: b"x" * (items.MAX_RECORD_BYTES + 1)}), patience=0)
    missing = count_items(make_message(), source, Objects(), patience=0)
    assert isinstance(many, Failure)
    assert isinstance(large, Failure)
    assert isinstance(missing, Failure)
    assert (many.reason, large.reason, missing.reason) == (
        Reason.ITEMS_INVALID,
        Reason.ITEMS_INVALID,
        Reason.INPUT_MISSING,
    )


@pytest.mark.parametrize("where", ["before", "between", "behind"])
def test_however_many_empty_lines_there_are_no_more_than_a_block_is_read(
    where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(items, "BLOCK_BYTES", 100)
    empty = b"\n" * 10_000
    content = {"before": empty + b"1\n2\n", "between": b"1\n" + empty + b"2\n", "behind": b"1\n2\n" + empty}[where]
    objects = Objects({KEY: content})
    counted = count(objects)
    assert counted.total == 2
    assert read(objects, counted, "0-1") == [1, 2]
    assert max(length for _, _, length in objects.parts) <= 200


def test_an_object_of_empty_lines_is_not_read_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(items, "MAX_LINES", 1000)
    ended = count_items(
        make_message(), Source(key=KEY, format=ItemsFormat.JSON_LINES), Objects({KEY: b"\n" * 1001}), patience=0
    )
    assert isinstance(ended, Failure)
    assert ended.reason is Reason.ITEMS_INVALID
    assert "more than 1000 lines" in ended.message


def test_lines_within_a_quote_are_looked_at_once() -> None:
    # As many as a row may have. If each line had the whole row looked at, this would take minutes.
    rows = b'a\n"' + b"\n" * items.MAX_RECORD_BYTES
    ended = count_items(
        make_message(), Source(key=KEY, format=ItemsFormat.CSV), Objects({KEY: rows}, piece=65_536), patience=0
    )
    assert isinstance(ended, Failure)
    assert f"longer than {items.MAX_RECORD_BYTES} bytes" in ended.message


@pytest.mark.parametrize("header", [b"\xff,b", b"a" * 200_000])
def test_a_header_that_cannot_be_read_is_said_to_be_it(header: bytes) -> None:
    ended = count_items(
        make_message(), Source(key=KEY, format=ItemsFormat.CSV), Objects({KEY: header + b"\n1,2\n"}), patience=0
    )
    assert isinstance(ended, Failure)
    assert ended.reason is Reason.ITEMS_INVALID
    assert "the header is not CSV" in ended.message


def test_an_object_that_changed_is_not_read() -> None:
    objects = Objects({KEY: b"1\n2\n"})
    counted = count(objects)
    objects.content[KEY] = b"3\n4\n"
    with pytest.raises(AttemptFailed, match="must not change"):
        read(objects, counted, "0")
