"""What a handler can do with the other keys of its namespace, and that it reaches no other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from redis.exceptions import NoPermissionError

from taskflow_operator.tasks.reconciler import GRACE_MS
from tests.attack.site import EVIL, VICTIM, Site
from tests.e2e.product import eventually

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize(
    "member", [b"\xff\xfe", b"no-colon", b":", b"a:b", b"x" * 1_000_000, b"a" * 64 + b":1", b"\x00:1", b"u:99999999999"]
)
def test_members_of_the_leases_that_are_no_attempts(site: Site, member: bytes) -> None:
    site.hostile.zadd(site.keys().leases, {member: 1})
    own = site.create(EVIL, "taskflow.echo", args=[1])
    eventually(lambda: site.admin.zscore(site.keys().leases, member), lambda score: score is None, 60)
    assert site.finished(own)["status"]["phase"] == "Succeeded"


def test_a_lease_of_the_victims_task_in_the_wrong_namespace(site: Site, tmp_path: Path) -> None:
    release = tmp_path / "go"
    running = site.create(
        VICTIM, "e2e.wait_for_file", kwargs={"record": str(tmp_path / "record"), "path": str(release)}
    )
    site.running(running)
    member = f"{running['metadata']['uid']}:1"
    site.hostile.zadd(site.keys().leases, {member: 1})
    site.hostile.set(site.keys().claim_prefix + member, "settled")
    own = site.create(EVIL, "taskflow.sleep", args=[3])
    eventually(lambda: site.admin.zscore(site.keys().leases, member), lambda score: score is None, 60)
    site.finished(own)
    release.touch()
    status = site.finished(running)["status"]
    assert (status["phase"], status["attempts"]) == ("Succeeded", 1)


def test_the_victims_keys_are_out_of_reach(site: Site) -> None:
    keys, hostile = site.keys(VICTIM), site.hostile
    refused = [
        lambda: hostile.xadd(keys.events, {"k": "x"}),
        lambda: hostile.zadd(keys.leases, {"a:1": 1}),
        lambda: hostile.zrem(keys.ledger, "a:1"),
        lambda: hostile.set(keys.claim_prefix + "a:1", "x"),
        lambda: hostile.get(keys.claim_prefix + "a:1"),
        lambda: hostile.get(keys.once_prefix + "a:1"),
        lambda: hostile.hset(keys.workers, "a", "b"),
        lambda: hostile.hget(keys.intake, "a"),
        lambda: hostile.hget(keys.stops, "a:1"),
        lambda: hostile.get(keys.epoch),
        lambda: hostile.set(site.keys().epoch, "x"),
        lambda: hostile.brpop([f"{VICTIM}.default"], timeout=1),
        lambda: hostile.lpush(f"{VICTIM}.default", "x"),
        lambda: hostile.hget(keys.unacked.messages, "x"),
        lambda: hostile.get("tf:epoch"),
        lambda: hostile.smembers("tf:namespaces"),
        lambda: hostile.keys("*"),
        lambda: hostile.config_get("requirepass"),
        hostile.acl_list,
        hostile.flushall,
        hostile.client_list,
        lambda: hostile.eval("return 1", 0),
        lambda: hostile.xrange(site.keys().events),
        lambda: hostile.publish("x", "y"),
    ]
    for command in refused:
        with pytest.raises(NoPermissionError):
            command()


def test_thirty_thousand_workers_that_do_not_exist(site: Site) -> None:
    report = json.dumps(
        {"namespace": EVIL, "pool": "main", "queues": ["default"], "slots": 1, "busy": 0, "serving": True, "atMs": 1}
    )
    for start in range(0, 30_000, 1000):
        site.hostile.hset(site.keys().workers, mapping={f"ghost-{start + number}": report for number in range(1000)})
    eventually(lambda: site.admin.hlen(site.keys().workers), lambda length: length < 100, 60)


def test_workers_whose_names_and_reports_are_no_text(site: Site) -> None:
    hostile = {b"\xff\xfe": b"{}", b"a": b"\xff", b"b": b"[" * 10_000, b"c" * 1000: b"{}", b"d": b"1" * 10**6}
    for name, report in hostile.items():
        site.hostile.hset(site.keys().workers, name, report)
    eventually(lambda: hostile.keys() & set(site.admin.hkeys(site.keys().workers)), lambda left: not left, 60)


def test_messages_that_are_none(site: Site) -> None:
    own = site.create(EVIL, "taskflow.echo", queue="nobody")
    member = f"{own['metadata']['uid']}:1"
    entered = eventually(lambda: site.admin.zscore(site.keys().ledger, member), lambda since: since is not None, 30)
    for message in (b"\xff" * 100, b"[" * 100_000, b"x" * 5_000_000, b"{}", b'{"headers": 1}'):
        site.hostile.rpush(f"{EVIL}.nobody", message)
    # Old enough to be missed, its message is looked for in each tick.
    eventually(lambda: site.admin.time()[0] * 1000 - entered, lambda age: age > GRACE_MS + 1000, 30)
    ticks = site.metric("taskflow_reconcile_seconds_count", kind="tick")
    eventually(lambda: site.metric("taskflow_reconcile_seconds_count", kind="tick") - ticks, lambda more: more >= 2, 30)
    assert site.task(EVIL, own["metadata"]["name"])["status"]["phase"] == "Queued"
    # Its place in the queue is asked by REST, whose client reads the same list.
    code, _ = site.rest("GET", f"/v1/namespaces/{EVIL}/tasks/{own['metadata']['name']}/position")
    assert code in (200, 403, 404)


def test_a_script_of_its_own(site: Site) -> None:
    """It could run for ever, so only those can be run that the operator has loaded."""
    with pytest.raises(NoPermissionError):
        site.hostile.script_load("while true do end")
    body = f"return redis.call('XADD', '{site.keys(VICTIM).events}', '*', 'k', 'lost')"
    digest = site.admin.script_load(body)
    with pytest.raises(Exception, match=r"can't access"):
        site.hostile.evalsha(digest, 0)
