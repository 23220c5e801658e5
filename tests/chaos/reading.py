"""Reads what is left of a run into the oracle's records."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import psycopg

from taskflow_core.blobs.store import ObjectStore
from taskflow_core.domain import naming
from taskflow_core.settings import StorageSettings
from tests.chaos.items import ItemRun, Stretch
from tests.chaos.oracle import Evidence, Execution, Resource, Row, Wanted
from tests.chaos.site import Site

REFUSALS = ("duplicate", "stale")


def executions(record: Path, uids: Collection[str]) -> list[Execution]:
    """What the handlers recorded of these Tasks."""
    begun: dict[str, Execution] = {}
    for line in record.read_text().splitlines():
        said = json.loads(line)
        run = said["run"]
        if said["what"] in ("item", "tick"):
            continue
        if said["what"] == "start":
            begun[run] = Execution(run, said["uid"], said["attempt"], said["pid"], said["at"])
        else:
            first = begun[run]
            raised = said["what"] == "raise"
            begun[run] = Execution(run, first.uid, first.attempt, first.pid, first.started, said["at"], raised)
    return [each for each in begun.values() if each.uid in uids]


def item_runs(record: Path, uids: Collection[str]) -> list[ItemRun]:
    """What the handlers recorded of items."""
    lines = (json.loads(line) for line in record.read_text().splitlines() if '"item"' in line)
    return [ItemRun(said["uid"], said["index"], said["attempt"]) for said in lines if said["uid"] in uids]


def item_rows(url: str, uids: Sequence[str]) -> dict[str, list[Stretch]]:
    """What PostgreSQL has of the items of these arrays."""
    with psycopg.connect(url.replace("postgresql+psycopg", "postgresql")) as connection:
        rows = connection.execute(
            "SELECT uid, first_index, last_index, state FROM array_items WHERE uid = ANY(%s)", (list(uids),)
        ).fetchall()
    found: dict[str, list[Stretch]] = {}
    for uid, first, last, state in rows:
        found.setdefault(uid, []).append(Stretch(first, last, state))
    return found


def outputs(stored: Iterable[dict[str, Any]]) -> dict[str, str]:
    """Keys by name."""
    return {each["name"]: each["key"] for each in stored}


def resources(items: Iterable[dict[str, Any]]) -> dict[str, Resource]:
    """Tasks as the API server lists them."""
    found = {}
    for item in items:
        uid, status = item["metadata"]["uid"], item.get("status", {})
        found[uid] = Resource(
            uid,
            status.get("phase", ""),
            status.get("attempt", 1),
            status.get("result"),
            outputs(status.get("outputs", ())),
            status.get("duplicateDeliveries", 0),
            status.get("staleEvents", 0),
            status.get("array", {}),
        )
    return found


def history(url: str, uids: Sequence[str]) -> tuple[dict[str, Row], frozenset[str]]:
    """Rows of these Tasks, and names of the refusals in their timelines."""
    with psycopg.connect(url.replace("postgresql+psycopg", "postgresql")) as connection:
        rows = connection.execute(
            "SELECT uid, phase, attempt, result, outputs FROM tasks WHERE uid = ANY(%s)", (list(uids),)
        ).fetchall()
        lines = connection.execute(
            "SELECT event_id FROM timeline WHERE uid = ANY(%s) AND kind = ANY(%s)", (list(uids), list(REFUSALS))
        ).fetchall()
    found = {row[0]: Row(row[0], row[1], row[2], row[3], outputs(row[4])) for row in rows}
    return found, frozenset(line[0] for line in lines)


def objects(site: Site, uids: Collection[str]) -> dict[str, bytes]:
    """Everything below the prefixes of these Tasks, and whatever belongs to no Task at all."""
    environment = site.stack.env()
    store = ObjectStore(
        StorageSettings(
            endpoint=environment["TASKFLOW_S3_ENDPOINT"],
            bucket=environment["TASKFLOW_S3_BUCKET"],
            access_key=environment["TASKFLOW_S3_ACCESS_KEY"],
            secret_key=environment["TASKFLOW_S3_SECRET_KEY"],
        )
    )
    keys: list[str] = []
    while page := store.list("", start_after=keys[-1] if keys else "", limit=1000):
        keys += [each.key for each in page]
    mine = [key for key in keys if key.split("/")[1] in uids]
    return {key: b"" if "/logs/" in key else store.get_bytes(key) for key in mine}


def waiting(site: Site) -> list[str]:
    """What of the run is still under way in Redis: it has to go by itself."""
    redis, found = site.redis, []
    keys = naming.keys_of("default")
    for name, key in (("ledger", keys.ledger), ("lease", keys.leases)):
        found += [f"{name} {member}" for member in redis.zrange(key, 0, -1)]
    found += [f"stop request {member}" for member in redis.hkeys(keys.stops)]
    found += [f"array {key}" for key in redis.scan_iter(match=f"{keys.array_prefix}*", count=1000)]
    for priority in (0, 3, 6, 9):
        key = naming.broker_list("default", "default", priority)
        if length := redis.llen(key):
            found.append(f"{length} messages in {key!r}")
    for stream in (keys.events, keys.notes):
        last = redis.xinfo_stream(stream)["last-generated-id"] if redis.exists(stream) else None
        for group in redis.xinfo_groups(stream) if last else ():
            # By its place, too: Redis' own count of a lag is off after a restart.
            behind = group["pending"] + (0 if group["last-delivered-id"] == last else max(group["lag"] or 0, 1))
            if behind:
                found.append(f"group {group['name']} is {behind} events of {stream} behind")
    for key in redis.scan_iter(match=f"{keys.claim_prefix}*", count=1000):
        value = redis.get(key) or ""
        # A closed attempt leaves a tombstone, which expires; a claim that names its holder only is a living one.
        if value and value not in ("settled", "deleted") and value.partition("|")[0] not in TOMBSTONES:
            found.append(f"claim {key} of {value}")
    return found


TOMBSTONES = ("done", "lost", "released", "cancelled", "failed")


def evidence(
    site: Site, wanted: Sequence[Wanted], *, data_losses: int, metric: dict[str, int] | None, left: list[str]
) -> Evidence:
    """Everything about these Tasks."""
    uids = {each.uid for each in wanted}
    site.tap.caught_up()
    url = site.stack.env()["TASKFLOW_DATABASE_URL"]
    rows, timeline = history(url, sorted(uids))
    return Evidence(
        wanted=wanted,
        resources={uid: found for uid, found in resources(site.api.tasks()).items() if uid in uids},
        rows=rows,
        executions=executions(site.record, uids),
        item_runs=item_runs(site.record, uids),
        item_rows=item_rows(url, sorted(uids)),
        told=[each for each in site.tap.told if each.uid in uids],
        timeline=timeline,
        objects=objects(site, uids),
        refusals_by_metric=metric,
        data_losses=data_losses,
        left=left,
        ended=site.unexpected_ends(),
    )
