from __future__ import annotations

from datetime import timedelta

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from taskflow_core.domain import naming
from taskflow_core.errors import Forbidden, Unavailable
from taskflow_core.kube.client import MERGE_PATCH, resource_path
from taskflow_provisioner.s3_logins import MinioLogins, SharedLogin, TemporaryLogins
from tests.integration.taskflow_provisioner.site import GRACE, Site, logs_in, objects

pytestmark = pytest.mark.integration
POOLS = f"apis/{naming.API_VERSION}"


async def make_pool(site: Site, name: str) -> None:
    body = {
        "apiVersion": naming.API_VERSION,
        "kind": "WorkerPool",
        "metadata": {"name": name},
        "spec": {"queues": ["default"], "concurrency": 1},
    }
    await site.admin.request("POST", resource_path(POOLS, "workerpools", site.namespace), body)


async def announced(site: Site, name: str) -> str | None:
    pool = await site.admin.request("GET", resource_path(POOLS, "workerpools", site.namespace, name))
    note = (pool["metadata"].get("annotations") or {}).get(naming.ANNOTATION_LOGIN)
    return None if note is None else str(note)


def reads(site: Site, values: dict[str, str]) -> bool:
    try:
        objects(values).list(f"{site.namespace}/", limit=1)
    except Forbidden:
        return False
    return True


async def test_on_request_both_logins_are_valid_for_the_time_of_grace(site: Site) -> None:
    provisioner = site.provisioner()
    await provisioner.compare()
    await make_pool(site, "main")
    await provisioner.compare()
    assert await announced(site, "main") is None, "its pods have the first login"
    former = await site.values()
    await site.annotate(rotate="now")
    await provisioner.compare()
    new = await site.values()
    assert all(former[key] != new[key] for key in ("TASKFLOW_REDIS_URL", "TASKFLOW_S3_ACCESS_KEY"))
    assert await announced(site, "main")
    for login in (former, new):
        assert logs_in(login)
        assert reads(site, login)
    # The same request is not answered again, and another one waits; nor does another process change anything.
    await provisioner.compare()
    await site.annotate(rotate="again")
    assert await site.provisioner().compare()
    assert await site.values() == new
    assert logs_in(former)

    connected = redis.Redis.from_url(
        former["TASKFLOW_REDIS_URL"], single_connection_client=True, retry=Retry(NoBackoff(), 0)
    )
    assert connected.ping()
    site.now += GRACE
    await provisioner.compare()
    assert not logs_in(former)
    assert not reads(site, former)
    with pytest.raises(redis.exceptions.RedisError):
        connected.ping()
    connected.close()
    assert logs_in(new)
    assert await site.values() == new
    await provisioner.compare()
    third = await site.values()
    assert third["TASKFLOW_S3_ACCESS_KEY"] == former["TASKFLOW_S3_ACCESS_KEY"], "a namespace has two names"
    assert third["TASKFLOW_S3_SECRET_KEY"] != former["TASKFLOW_S3_SECRET_KEY"]


async def test_on_schedule_and_with_users_lost_meanwhile(site: Site) -> None:
    provisioner = site.provisioner(after=timedelta(days=30))
    await provisioner.compare()
    former = await site.values()
    site.now += timedelta(days=30)
    await provisioner.compare()
    new = await site.values()
    assert new != former
    site.stack.stop("redis")
    site.stack.start("redis")
    # Another process: it knows of the former password only what the Secret says.
    await site.provisioner(after=timedelta(days=30)).compare()
    assert logs_in(new)
    assert logs_in(former)


async def test_a_rotation_that_ends_before_the_secret_is_written_is_begun_again(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    provisioner = site.provisioner()
    await provisioner.compare()
    former = await site.values()
    await site.annotate(rotate="now")

    async def down(body: object, former: object) -> object:
        raise Unavailable("no answer")

    monkeypatch.setattr(provisioner._cluster, "apply_secret", down)
    assert not await provisioner.compare()
    assert await site.values() == former
    assert logs_in(former)
    assert reads(site, former)
    monkeypatch.undo()
    assert await provisioner.compare()
    new = await site.values()
    assert logs_in(new)
    assert reads(site, new)
    assert logs_in(former)


async def test_a_rotation_whose_answer_is_lost_leaves_both_logins_valid(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    provisioner = site.provisioner()
    await provisioner.compare()
    former = await site.values()
    await site.annotate(rotate="now")
    apply = provisioner._cluster.apply_secret

    async def lost(body: dict[str, object], former: dict[str, object]) -> object:
        await apply(body, former)
        raise Unavailable("the answer is lost")

    monkeypatch.setattr(provisioner._cluster, "apply_secret", lost)
    assert not await provisioner.compare()
    monkeypatch.undo()
    await provisioner.mend_redis()
    new = await site.values()
    assert new != former
    for login in (former, new):
        assert logs_in(login)
        assert reads(site, login)
    assert await provisioner.compare()
    assert await site.values() == new
    assert logs_in(former)


async def test_deleting_the_secret_revokes_it_at_once(site: Site) -> None:
    provisioner = site.provisioner()
    await provisioner.compare()
    await make_pool(site, "main")
    leaked = await site.values()
    await site.admin.request("DELETE", site.path())
    await provisioner.compare()
    assert not logs_in(leaked)
    assert not reads(site, leaked)
    assert logs_in(await site.values())
    assert await announced(site, "main")


async def test_a_secret_that_somebody_changed_is_set_back_with_another_login(site: Site) -> None:
    provisioner = site.provisioner()
    await provisioner.compare()
    await make_pool(site, "main")
    former = await site.values()
    body = {"data": {"TASKFLOW_REDIS_URL": "cmVkaXM6Ly90aGVpcnM="}}
    await site.admin.request("PATCH", site.path(), body, content_type=MERGE_PATCH, params={"fieldManager": "them"})
    assert await provisioner.compare()
    assert logs_in(await site.values())
    assert not logs_in(former)
    assert await announced(site, "main")
    body = {"data": {"TASKFLOW_S3_ENDPOINT": "eA=="}}
    await site.admin.request("PATCH", site.path(), body, content_type=MERGE_PATCH, params={"fieldManager": "them"})
    assert await provisioner.compare()
    assert logs_in(await site.values())
    assert reads(site, await site.values())


async def test_a_secret_that_changed_since_it_was_read_is_looked_at_again(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    provisioner = site.provisioner()
    await provisioner.compare()
    await site.annotate(rotate="now")
    apply = provisioner._cluster.apply_secret

    async def after_a_change(body: dict[str, object], former: dict[str, object] | None = None) -> object:
        change = {"metadata": {"labels": {naming.LABEL_MANAGED_BY: "them"}}}
        await site.admin.request("PATCH", site.path(), change, content_type=MERGE_PATCH)
        return await apply(body, former)

    monkeypatch.setattr(provisioner._cluster, "apply_secret", after_a_change)
    before = await site.values()
    await provisioner.compare()
    assert await site.values() == before
    assert "ForeignSecret" not in await site.reasons()
    monkeypatch.undo()
    await provisioner.compare()
    assert await site.values() == before
    assert (await site.reasons())[-1] == "ForeignSecret"


async def test_temporary_keys_by_assume_role_reach_the_namespace_only_and_are_renewed(site: Site) -> None:
    logins = TemporaryLogins(site.storage, site.storage.endpoint, "", timedelta(hours=1))
    provisioner = site.provisioner(logins)
    await provisioner.compare()
    former = await site.values()
    assert former["TASKFLOW_S3_SESSION_TOKEN"]
    notes = (await site.secret())["metadata"]["annotations"]
    assert notes["taskflow.dev/s3-login"] == "temporary"
    assert notes["taskflow.dev/s3-login-expires"]
    objects(former).put_bytes(f"{site.namespace}/own", b"ours")
    with pytest.raises(Forbidden):
        objects(former).get_bytes("other/secret")
    site.now += timedelta(minutes=31)
    await provisioner.compare()
    new = await site.values()
    assert new["TASKFLOW_S3_SESSION_TOKEN"] != former["TASKFLOW_S3_SESSION_TOKEN"]
    assert objects(new).get_bytes(f"{site.namespace}/own") == b"ours"


async def test_one_key_is_shared_where_the_server_has_neither_and_another_kind_replaces_it(site: Site) -> None:
    port = site.stack.port("versitygw")
    site.storage = site.storage.model_copy(update={"endpoint": f"http://127.0.0.1:{port}"})
    provisioner = site.provisioner(SharedLogin(site.storage))
    await provisioner.compare()
    values = await site.values()
    assert (await site.secret())["metadata"]["annotations"]["taskflow.dev/s3-login"] == "shared"
    objects(values).put_bytes(f"{site.namespace}/own", b"ours")
    assert "shared" in (await site.events())[-1]["note"]
    # It is said what to do where MinIO was expected.
    other = site.provisioner(MinioLogins(site.storage))
    assert not await other.compare()
    assert "TASKFLOW_PROVISIONER_S3_LOGINS to sts or shared" in (await site.events())[-1]["note"]
    assert await site.values() == values
