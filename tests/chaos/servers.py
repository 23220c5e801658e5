"""Faults of the servers that TaskFlow stands on. Each lasts `away_seconds` and is taken back."""

from __future__ import annotations

import base64
import json
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from random import Random
from typing import Any

import psycopg

from tests.chaos.api_server import ApiError
from tests.chaos.ground import Ground
from tests.chaos.proxy import Way
from tests.chaos.site import Site

FLOW = "/apis/flowcontrol.apiserver.k8s.io/v1"
OPERATOR_ACCOUNT = {"name": "taskflow-operator", "namespace": "taskflow-system"}
Act = Callable[[Ground, Random], int]


def stopped(name: str) -> Act:
    """SIGKILL, and started again after a while."""

    def act(site: Ground, random: Random) -> int:
        site.stack.stop(name, signal.SIGKILL)
        try:
            time.sleep(site.away_seconds)
        finally:
            site.stack.start(name)
        return 1

    return act


def held(*names: str, seconds: float | None = None) -> Act:
    """Nothing passes and nobody is told."""

    def act(site: Ground, random: Random) -> int:
        with ExitStack() as ways:
            for name in names:
                ways.enter_context(_way(site, name, Way.HELD))
            time.sleep(site.away_seconds if seconds is None else seconds)
        return 1

    return act


def answered(name: str) -> Act:
    """HTTP 503 for everything."""

    def act(site: Ground, random: Random) -> int:
        with _way(site, name, Way.ANSWERED):
            time.sleep(site.away_seconds)
        return 1

    return act


def slow(seconds: float, *names: str) -> Act:
    """Each piece of data is late by so much, in both directions."""

    def act(site: Ground, random: Random) -> int:
        for name in names:
            site.ways[name].delay = seconds
        try:
            time.sleep(site.away_seconds)
        finally:
            for name in names:
                site.ways[name].delay = 0.0
        return 1

    return act


@contextmanager
def _way(site: Ground, name: str, way: Way) -> Iterator[None]:
    site.ways[name].set(way)
    try:
        yield
    finally:
        site.ways[name].set(Way.OPEN)


def redis_full(site: Ground, random: Random) -> int:
    """No memory left for anything that would need more."""
    used = site.redis.info("memory")["used_memory"]
    site.redis.config_set("maxmemory", used // 2)
    try:
        time.sleep(site.away_seconds)
    finally:
        site.redis.config_set("maxmemory", 0)
    return 1


def postgres_read_only(site: Site, random: Random) -> int:
    """As after a failover to a standby that was not promoted yet."""
    with _administrator(site) as connection:
        connection.execute("ALTER SYSTEM SET default_transaction_read_only = on")
        connection.execute("SELECT pg_reload_conf()")
    try:
        time.sleep(site.away_seconds)
    finally:
        with _administrator(site) as connection:
            connection.execute("ALTER SYSTEM RESET default_transaction_read_only")
            connection.execute("SELECT pg_reload_conf()")
    return 1


def _administrator(site: Site) -> Any:
    return psycopg.connect(
        host="127.0.0.1",
        port=site.stack.port("postgres"),
        user="postgres",
        password=site.stack.folder.load().postgres_admin_password,
        dbname="postgres",
        autocommit=True,
        options="-c default_transaction_read_only=off",
    )


def too_many_requests(site: Site, random: Random) -> int:
    """The API server's own priority and fairness refuses everything from the operator with 429: no seat, no queue."""
    level = {
        "apiVersion": "flowcontrol.apiserver.k8s.io/v1",
        "kind": "PriorityLevelConfiguration",
        "metadata": {"name": "chaos"},
        "spec": {
            "type": "Limited",
            "limited": {"nominalConcurrencyShares": 0, "lendablePercent": 0, "borrowingLimitPercent": 0}
            | {"limitResponse": {"type": "Reject"}},
        },
    }
    rule = {
        "subjects": [{"kind": "ServiceAccount", "serviceAccount": OPERATOR_ACCOUNT}],
        "resourceRules": [
            {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"], "clusterScope": True}
        ],
    }
    schema = {
        "apiVersion": "flowcontrol.apiserver.k8s.io/v1",
        "kind": "FlowSchema",
        "metadata": {"name": "chaos"},
        "spec": {"priorityLevelConfiguration": {"name": "chaos"}, "matchingPrecedence": 2, "rules": [rule]},
    }
    try:
        site.api.insist("POST", f"{FLOW}/prioritylevelconfigurations", level)
        site.api.insist("POST", f"{FLOW}/flowschemas", schema)
        time.sleep(site.away_seconds)
    finally:
        for kind in ("flowschemas", "prioritylevelconfigurations"):
            with suppress(ApiError):
                site.api.insist("DELETE", f"{FLOW}/{kind}/chaos")
    return 1


def watch_expired(site: Site, random: Random) -> int:
    """The operator is cut off, etcd is compacted and the API server started anew: the version it watched from is gone
    (410).
    """
    with _way(site, "kube-apiserver", Way.CUT):
        time.sleep(site.away_seconds / 2)
        etcd = f"http://127.0.0.1:{site.stack.port('etcd')}/v3/kv"
        key = base64.b64encode(b"/").decode()
        answer = site.http.request("POST", f"{etcd}/range", body=json.dumps({"key": key}))
        revision = json.loads(answer.data)["header"]["revision"]
        compacted = site.http.request(
            "POST", f"{etcd}/compaction", body=json.dumps({"revision": revision, "physical": True})
        )
        if compacted.status != 200:
            raise RuntimeError(f"etcd would not be compacted: {compacted.data.decode()}")
        site.stack.stop("kube-apiserver", signal.SIGKILL)
        site.stack.start("kube-apiserver")
    return 1
