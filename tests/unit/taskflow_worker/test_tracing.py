from __future__ import annotations

import pytest

from taskflow_core.telemetry.logs import trace_id

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.mark.parametrize(
    ("traceparent", "expected"),
    [
        (f"00-{TRACE}-00f067aa0ba902b7-01", TRACE),
        # A later version may have more parts.
        (f"01-{TRACE}-00f067aa0ba902b7-01-more", TRACE),
        (None, None),
        ("", None),
        ("nonsense", None),
        ("00-short-00f067aa0ba902b7-01", None),
    ],
)
def test_the_trace_id_of_a_traceparent(traceparent: str | None, expected: str | None) -> None:
    assert trace_id(traceparent) == expected
