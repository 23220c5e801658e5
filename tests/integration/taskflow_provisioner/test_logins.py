from __future__ import annotations

import base64

import pytest
import redis
from minio.commonconfig import CopySource
from pydantic import SecretStr

from taskflow_core.blobs.store import ObjectStore
from taskflow_core.broker import acl
from taskflow_core.domain import naming
from taskflow_core.errors import Forbidden
from taskflow_provisioner.fixed_users import s3_users_of
from taskflow_provisioner.s3_logins import MinioLogins
from tests.integration.taskflow_provisioner.site import Site, logs_in, objects

pytestmark = pytest.mark.integration


async def test_a_labelled_namespace_gets_logins_that_reach_nothing_of_others(site: Site) -> None:
    other = f"{site.namespace}-b"
    await site.add(other)
    await site.provisioner().compare()
    ours, theirs = await site.values(), await site.values(other)
    assert acl.worker_user(site.namespace) in ours["TASKFLOW_REDIS_URL"]
    with redis.Redis.from_url(ours["TASKFLOW_REDIS_URL"]) as client:
        client.lpush(naming.broker_queue(site.namespace, "q"), "x")
        with pytest.raises(redis.exceptions.NoPermissionError):
            client.lpush(naming.broker_queue(other, "q"), "x")
        with pytest.raises(redis.exceptions.NoPermissionError):
            client.keys("*")
    objects(theirs).put_bytes(f"{other}/secret", b"theirs")
    objects(ours).put_bytes(f"{site.namespace}/own", b"ours")
    with pytest.raises(Forbidden):
        objects(ours).get_bytes(f"{other}/secret")
    notes = (await site.secret())["metadata"]["annotations"]
    assert (notes["taskflow.dev/redis-login"], notes["taskflow.dev/s3-login"]) == ("own", "own")
    assert await site.reasons() == ["LoginsMade"]


async def test_a_second_round_and_another_process_change_nothing(site: Site) -> None:
    provisioner = site.provisioner()
    assert await provisioner.compare()
    before = await site.secret()
    assert await provisioner.compare()
    assert await site.provisioner().compare()
    assert await site.secret() == before


async def test_logins_are_taken_back_with_the_label(site: Site) -> None:
    provisioner = site.provisioner()
    await provisioner.compare()
    values = await site.values()
    client = redis.Redis.from_url(values["TASKFLOW_REDIS_URL"])
    client.ping()
    await site.label(site.namespace, None)
    await provisioner.compare()
    assert not await site.has_secret()
    assert not logs_in(values)
    client.close()
    with pytest.raises(Forbidden):
        objects(values).list(f"{site.namespace}/")
    assert await site.reasons() == ["LoginsMade", "LoginsTakenBack"]


async def test_a_namespace_that_was_deleted_while_nobody_looked_leaves_no_user(site: Site) -> None:
    await site.provisioner().compare()
    values = await site.values()
    await site.admin.request("DELETE", f"/api/v1/namespaces/{site.namespace}")
    await site.provisioner().compare()
    assert not logs_in(values)
    with pytest.raises(Forbidden):
        objects(values).list(f"{site.namespace}/")


async def test_the_secret_of_somebody_else_and_their_users_are_left_alone(site: Site) -> None:
    await site.redis.execute_command("ACL", "SETUSER", acl.worker_user(site.namespace), "on", ">theirs")  # type: ignore[no-untyped-call]
    body = {"metadata": {"name": naming.WORKER_SECRET}, "stringData": {"TASKFLOW_REDIS_URL": "redis://theirs"}}
    await site.admin.request("POST", f"/api/v1/namespaces/{site.namespace}/secrets", body)
    before = await site.secret()
    provisioner = site.provisioner()
    assert await provisioner.compare()
    await provisioner.compare()
    assert await site.secret() == before
    assert await site.redis.execute_command("ACL", "GETUSER", acl.worker_user(site.namespace))  # type: ignore[no-untyped-call]
    assert await site.reasons() == ["ForeignSecret"]
    await site.admin.request("DELETE", site.path())
    await provisioner.compare()
    assert logs_in(await site.values())


async def test_another_installation_in_the_cluster_leaves_logins_alone_labelled_or_not(site: Site) -> None:
    await site.provisioner(installation="first").compare()
    before = await site.secret()
    second = site.provisioner(installation="second")
    await second.compare()
    await site.label(site.namespace, None)
    await second.compare()
    assert await site.secret() == before
    assert logs_in(await site.values())
    assert objects(await site.values()).list(f"{site.namespace}/") == []


async def test_a_secret_that_a_former_chart_made_is_taken_over_and_its_workers_replaced(site: Site) -> None:
    labels = {"app.kubernetes.io/managed-by": "taskflow-provision", "app.kubernetes.io/part-of": "taskflow"}
    former = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": naming.WORKER_SECRET, "namespace": site.namespace, "labels": labels},
        "data": {"TASKFLOW_REDIS_URL": base64.b64encode(b"redis://:administrator@redis/0").decode()},
    }
    await site.admin.apply(site.path(), former, manager="taskflow-provision")
    assert await site.provisioner().compare()
    assert logs_in(await site.values())
    assert (await site.secret())["metadata"]["annotations"]["taskflow.dev/login-replaces"] == "true"


async def test_users_that_were_lost_or_changed_are_back_with_the_same_passwords(site: Site) -> None:
    provisioner = site.provisioner()
    await provisioner.compare()
    values = await site.values()
    user = acl.worker_user(site.namespace)
    await site.redis.execute_command("ACL", "DELUSER", user, acl.OPERATOR)  # type: ignore[no-untyped-call]
    assert not logs_in(values)
    await provisioner.mend_redis()
    assert logs_in(values)
    assert await site.redis.execute_command("ACL", "GETUSER", acl.OPERATOR)  # type: ignore[no-untyped-call]
    await site.redis.execute_command("ACL", "SETUSER", user, "+@all", "~*", ">another")  # type: ignore[no-untyped-call]
    await provisioner.mend_redis()
    with (
        redis.Redis.from_url(values["TASKFLOW_REDIS_URL"]) as client,
        pytest.raises(redis.exceptions.NoPermissionError),
    ):
        client.keys("*")
    await site.redis.flushall()
    await provisioner.compare()
    assert logs_in(values)


async def test_after_a_restart_of_redis_without_an_acl_file_the_users_are_back(site: Site) -> None:
    provisioner = site.provisioner()
    await provisioner.compare()
    values = await site.values()
    site.stack.stop("redis")
    site.stack.start("redis")
    assert not logs_in(values)
    await provisioner.mend_redis()
    assert logs_in(values)


async def test_an_s3_user_that_was_removed_is_back_with_the_same_key(site: Site) -> None:
    provisioner = site.provisioner()
    await provisioner.compare()
    values = await site.values()
    assert MinioLogins(site.storage).sweep((), lambda name: name != site.namespace)
    with pytest.raises(Forbidden):
        objects(values).list(f"{site.namespace}/")
    await provisioner.compare()
    assert objects(values).list(f"{site.namespace}/") == []


async def test_one_namespace_that_fails_does_not_stop_another(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    other = f"{site.namespace}-b"
    await site.add(other)
    provisioner = site.provisioner()
    make = provisioner._s3.make

    def broken(namespace: str, former: object) -> object:
        if namespace == site.namespace:
            raise Forbidden("no")
        return make(namespace, None)

    monkeypatch.setattr(provisioner._s3, "make", broken)
    assert not await provisioner.compare()
    assert logs_in(await site.values(other))
    assert await site.reasons() == ["LoginsFailing"]
    monkeypatch.undo()
    assert await provisioner.compare()
    assert logs_in(await site.values())


async def test_the_apis_s3_user_is_made_and_made_again_and_cannot_copy(site: Site) -> None:
    users = s3_users_of({acl.API: "a-secret-key-of-the-test", "somebody": "else"}, site.storage.bucket)
    provisioner = site.provisioner(MinioLogins(site.storage, users))
    await provisioner.compare()
    key = {"access_key": SecretStr(acl.API), "secret_key": SecretStr("a-secret-key-of-the-test")}
    store = ObjectStore(site.storage.model_copy(update=key))
    store.put_bytes("a/b", b"x")
    admin = MinioLogins(site.storage)._admin
    with pytest.raises(Exception, match="AccessDenied"):
        store._client.copy_object(site.storage.bucket, "a/c", CopySource(site.storage.bucket, "a/b"))
    with pytest.raises(Exception, match="NoSuchUser"):
        admin.user_info("somebody")
    admin.user_remove(acl.API)
    await provisioner.compare()
    assert store.get_bytes("a/b") == b"x"
