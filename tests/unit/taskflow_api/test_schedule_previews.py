from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from taskflow_api.http.services import Services
from tests.unit.taskflow_api.fakes import Api
from tests.unit.taskflow_api.schedule_site import SCHEDULES, stored

PREVIEW = SCHEDULES + ":next"


@pytest.fixture(autouse=True)
def _before_the_clocks_change(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Services, "now", lambda _: datetime(2026, 10, 24, 12, tzinfo=UTC))


async def test_the_next_ticks_are_told_in_utc_and_on_the_clocks_of_the_zone() -> None:
    answer = await stored().call("GET", SCHEDULES + "/nightly/next?count=2")
    assert (answer.status, answer.json["timeZone"], answer.json["suspended"]) == (200, "Europe/Berlin", False)
    assert answer.json["items"] == [
        {"scheduledTime": "2026-10-25T00:30:00Z", "localTime": "2026-10-25T02:30:00+02:00"},
        {"scheduledTime": "2026-10-26T01:30:00Z", "localTime": "2026-10-26T02:30:00+01:00"},
    ]
    assert len((await stored().call("GET", SCHEDULES + "/nightly/next")).json["items"]) == 10


async def test_a_suspended_schedule_has_ticks_and_says_that_it_is() -> None:
    answer = await stored(suspend=True).call("GET", SCHEDULES + "/nightly/next?count=1")
    assert (len(answer.json["items"]), answer.json["suspended"]) == (1, True)


async def test_a_schedule_with_an_end_has_fewer() -> None:
    answer = await stored(endTime="2026-10-27T00:00:00Z").call("GET", SCHEDULES + "/nightly/next")
    assert len(answer.json["items"]) == 2
    answer = await stored(endTime="2026-10-01T00:00:00Z").call("GET", SCHEDULES + "/nightly/next")
    assert (answer.status, answer.json["items"]) == (200, [])


async def test_a_timing_is_previewed_as_that_of_the_schedule_that_it_will_be() -> None:
    api, timing = stored(), {"schedules": ["H H * * *"], "timeZone": "Europe/Berlin"}
    answer = await api.call("POST", PREVIEW + "?count=1", {"name": "nightly", "spec": timing})
    assert answer.status == 200
    (line,) = answer.json["resolvedSchedules"]
    assert "H" not in line
    applied = stored(**timing)
    assert (await applied.call("GET", SCHEDULES + "/nightly/next?count=1")).json == answer.json
    other = await api.call("POST", PREVIEW, {"name": "other", "spec": timing})
    assert other.json["resolvedSchedules"] != [line]
    assert not [call for call in api.kube.calls if "taskschedules" in call[1]]


async def test_an_interval_is_previewed() -> None:
    timing = {"every": {"seconds": 3600, "anchor": "2026-01-01T00:15:00Z"}}
    answer = await Api().call("POST", PREVIEW + "?count=2", {"spec": timing})
    assert [item["localTime"] for item in answer.json["items"]] == [
        "2026-10-24T12:15:00+00:00",
        "2026-10-24T13:15:00+00:00",
    ]


@pytest.mark.parametrize(
    ("timing", "pointer", "said"),
    [
        ({"schedules": ["0 0 1 1 *", "0 0 31 2 *"]}, "/spec/schedules/1", "0 0 31 2 *"),
        ({"schedules": ["0 25 * * *"]}, "/spec/schedules/0", "0 25 * * *"),
        ({"schedules": ["@daily"], "timeZone": "Europe/Berlln"}, "/spec/timeZone", "did you mean Europe/Berlin?"),
        ({"schedules": ["@daily"], "timeZone": "../etc"}, "/spec/timeZone", "match pattern"),
        ({"schedules": ["@daily"], "every": {"seconds": 60}}, "/spec", "exactly one of schedules and every"),
        ({}, "/spec", "exactly one of schedules and every"),
        ({"schedules": ["@daily"], "suspend": True}, "/spec/suspend", "not permitted"),
    ],
)
async def test_a_timing_without_ticks_is_refused_where_it_is_wrong(
    timing: dict[str, Any], pointer: str, said: str
) -> None:
    answer = await Api().call("POST", PREVIEW, {"spec": timing})
    assert (answer.status, answer.json["code"]) == (422, "invalid")
    (error,) = answer.json["errors"]
    assert (error["pointer"], said in error["detail"]) == (pointer, True), error


@pytest.mark.parametrize("line", ["@yearly", "0 0 29 2 *", "* * * * *"])
async def test_no_time_is_too_late_for_it(line: str) -> None:
    timing = {"schedules": [line], "startTime": "9998-12-31T23:00:00Z", "timeZone": "Pacific/Kiritimati"}
    answer = await Api().call("POST", PREVIEW + "?count=100", {"spec": timing})
    assert answer.status == 200, answer.json
    every = {"every": {"seconds": 31_536_000}, "startTime": "9998-12-31T23:00:00Z"}
    assert (await Api().call("POST", PREVIEW + "?count=100", {"spec": every})).status == 200


async def test_a_schedule_that_is_stalled_says_why() -> None:
    answer = await stored(schedules=["0 0 31 2 *"]).call("GET", SCHEDULES + "/nightly/next")
    assert (answer.status, "0 0 31 2 *" in answer.json["detail"]) == (409, True)
    answer = await stored(every="hourly").call("GET", SCHEDULES + "/nightly/next")
    assert (answer.status, "cannot be read" in answer.json["detail"]) == (409, True)
    assert (await stored().call("GET", SCHEDULES + "/never/next")).status == 404


async def test_a_count_has_bounds() -> None:
    for count in ("0", "101", "x"):
        answer = await stored().call("GET", SCHEDULES + f"/nightly/next?count={count}")
        assert (answer.status, answer.json["errors"][0]["pointer"]) == (422, "/count")


async def test_a_preview_needs_the_right_to_create() -> None:
    answer = await Api().call("POST", PREVIEW, {"spec": {"schedules": ["@daily"]}}, token="bob-token")
    assert (answer.status, "may not create taskschedules" in answer.json["detail"]) == (403, True)
