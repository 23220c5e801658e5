"""What a handler can say in the event stream, which its login lets it write as it likes."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path
from typing import Any

import pytest
from redis.exceptions import NoPermissionError

from taskflow_core.domain import naming
from tests.api_server import EVENTS
from tests.attack.site import EVIL, VICTIM, Site
from tests.e2e.product import eventually

pytestmark = pytest.mark.e2e

FAILURE = json.dumps({"reason": "WorkerLost", "message": "so says a liar"})
SNAPSHOT = {
    "namespace": VICTIM,
    "name": "forged",
    "created": "2026-01-01T00:00:00Z",
    "spec": {"handler": "evil.run"},
    "phase": "Failed",
    "attempt": 1,
}


def refused(site: Site, **labels: str) -> float:
    return site.metric("taskflow_events_refused_total", consumer="cr", **labels)


def until_refused(site: Site, reason: str, count: int, before: float) -> None:
    eventually(lambda: refused(site, reason=reason) - before, lambda more: more >= count, 30)


@pytest.mark.parametrize("field", ["k", "uid", "att", "tok", "w", "ts", "p"])
def test_bytes_that_are_no_text(site: Site, field: str) -> None:
    before = refused(site)
    values: dict[str, Any] = {"k": "started", "uid": "u", "att": "1", "tok": "t", "w": "w", "ts": "1", "p": "{}"}
    site.hostile.xadd(site.keys().events, values | {field: b"\xff\xfe\x80"})
    eventually(lambda: refused(site) - before, lambda more: more >= 1, 30)


def test_sixty_ends_whose_payload_is_not_theirs(site: Site) -> None:
    before = refused(site, reason="token")
    waiting = [site.create(EVIL, "taskflow.echo", queue="nobody") for _ in range(3)]
    for number in range(60):
        uid = waiting[number % 3]["metadata"]["uid"]
        site.say("lost", uid, p=json.dumps({"reason": "WorkerLost", "runMs": "x"}))
    until_refused(site, "token", 60, before)


def test_an_entry_of_eight_mebibytes(site: Site) -> None:
    pid = site.stack.pid("operator")
    before = refused(site)
    for _ in range(5):
        site.say("succeeded", "u", p="[" + ",".join(["{}"] * 2_800_000) + "]")
    eventually(lambda: refused(site) - before, lambda more: more >= 5, 60)
    peak = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
    assert int(peak.split()[1]) < 300 * 1024, peak


def test_json_that_is_nested_a_hundred_thousand_levels_deep(site: Site) -> None:
    before = refused(site)
    site.say("succeeded", "u", p="[" * 100_000 + "]" * 100_000)
    eventually(lambda: refused(site) - before, lambda more: more >= 1, 30)


def test_the_greatest_id_ends_the_stream_of_its_own_namespace_only(site: Site) -> None:
    before = site.metric("taskflow_namespaces_set_aside_total", namespace=EVIL)
    site.hostile.xadd(site.keys().events, {"k": "x"}, id="18446744073709551615-18446744073709551615")
    site.assert_unharmed()
    # A Task of its own, so that somebody looks at once.
    own = site.create(EVIL, "taskflow.echo", args=[1])
    eventually(
        lambda: site.metric("taskflow_namespaces_set_aside_total", namespace=EVIL) - before, lambda more: more >= 1, 60
    )
    assert site.finished(own, 60)["status"]["phase"] == "Succeeded"
    conditions = eventually(
        lambda: {each["type"]: each for each in site.pool(EVIL)["conditions"]},
        lambda found: "EventsIntact" in found,
        30,
    )
    assert conditions["EventsIntact"]["status"] == "False"
    assert conditions["EventsIntact"]["reason"] == "StreamReset"
    told = [each["reason"] for each in site.api_server.list(EVENTS, namespace=EVIL)]
    assert "StreamReset" in told
    others = {each["type"] for each in site.pool(VICTIM)["conditions"]}
    assert "EventsIntact" not in others


def test_a_flood(site: Site) -> None:
    for _ in range(40):
        pipe = site.hostile.pipeline(transaction=False)
        for _ in range(500):
            pipe.xadd(site.keys().events, {"k": "started", "uid": "u", "att": "1"})
        pipe.execute()
    began = time.monotonic()
    site.assert_unharmed()
    assert time.monotonic() - began < 10


def test_what_only_the_operator_may_say(site: Site) -> None:
    before = refused(site, reason="kind")
    mirror = site.metric("taskflow_events_refused_total", consumer="pg", reason="kind")
    uid = "11111111-1111-1111-1111-111111111111"
    for kind in ("pending", "queued", "settled", "deleted"):
        site.say(kind, uid, p=json.dumps(SNAPSHOT))
    until_refused(site, "kind", 4, before)
    with pytest.raises(NoPermissionError):
        site.say("settled", uid, stream=site.keys().notes, p=json.dumps(SNAPSHOT))
    # The history's own reader has seen all of them, too.
    eventually(
        lambda: site.metric("taskflow_events_refused_total", consumer="pg", reason="kind") - mirror,
        lambda more: more >= 4,
        30,
    )
    assert site.database.execute("SELECT count(*) FROM tasks WHERE uid = %s", (uid,)).fetchone() == (0,)
    assert site.database.execute("SELECT count(*) FROM timeline WHERE uid = %s", (uid,)).fetchone() == (0,)


def test_ends_of_the_victims_running_task(site: Site, tmp_path: Path) -> None:
    before = refused(site, reason="token")
    release = tmp_path / "go"
    running = site.create(
        VICTIM, "e2e.wait_for_file", kwargs={"record": str(tmp_path / "record"), "path": str(release)}
    )
    site.running(running)
    uid = running["metadata"]["uid"]
    kinds = ("succeeded", "failed", "cancelled", "released", "lost", "progress", "started", "duplicate", "stale")
    for kind in kinds:
        site.say(kind, uid, p=FAILURE, tok="0" * 32)
        site.say(kind, uid, p=FAILURE)
    until_refused(site, "token", 2 * len(kinds), before)
    for stream in (site.keys(VICTIM).events, site.keys(VICTIM).notes, "tf:ev"):
        with pytest.raises(NoPermissionError):
            site.say("lost", uid, stream=stream, p=FAILURE)
    release.touch()
    status = site.finished(running)["status"]
    assert (status["phase"], status["attempts"], status.get("staleEvents", 0)) == ("Succeeded", 1, 0)


def test_a_second_attempt_beside_the_first_one_of_its_own(site: Site, tmp_path: Path) -> None:
    """`lost` and `released` without the attempt's token: the uid alone is no proof."""
    before = refused(site, reason="token")
    release = tmp_path / "go"
    record = tmp_path / "record"
    running = site.create(EVIL, "e2e.wait_for_file", kwargs={"record": str(record), "path": str(release)})
    site.running(running)
    for kind in ("lost", "released"):
        site.say(kind, running["metadata"]["uid"], p=FAILURE)
    until_refused(site, "token", 2, before)
    release.touch()
    assert site.finished(running)["status"]["attempts"] == 1
    assert record.read_text().count('"start"') == 1


def test_an_array_whose_items_are_counted_absurdly(site: Site) -> None:
    """The chunk that counts is taken from the queue, with its token, and answered by hand."""
    arrays = [
        site.create(EVIL, "taskflow.echo", queue="by-hand", array={"itemsFrom": {"key": f"items-{number}.jsonl"}})
        for number in range(5)
    ]
    for _ in arrays:
        found = None
        deadline = time.monotonic() + 30
        while found is None and time.monotonic() < deadline:
            found = site.hostile.brpop([naming.broker_list(EVIL, "by-hand", 0)], timeout=5)
        assert found is not None
        message = json.loads(base64.b64decode(json.loads(found[1])["body"]))[0][0]
        payload = {"total": 10**20, "source": {"key": f"{EVIL}/items.jsonl", "format": "JSONLines"}}
        site.say("succeeded", message["uid"], att="1:-1", tok=message["token"], p=json.dumps(payload))
    for array in arrays:
        site.product.kubectl(
            "-n", EVIL, "patch", "tft", array["metadata"]["name"], "--type=merge", "-p", '{"spec":{"cancel":true}}'
        )
    for array in arrays:
        assert site.finished(array, 60)["status"]["phase"] in ("Cancelled", "Failed")
