from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from taskflow_api.http.kubernetes_auth import Scope
from taskflow_api.identity.keys import NewKey
from taskflow_api.operations import runner as module
from taskflow_api.operations.runner import OperationRunner
from taskflow_core.errors import Forbidden, Invalid, Unavailable
from tests.unit.taskflow_api.fake_history import CREATED
from tests.unit.taskflow_api.fakes import Api, FakeKube
from tests.unit.taskflow_api.rows import row

PATH = "/apis/taskflow.dev/v1alpha1/namespaces/team-a/tasks"
TASKS = "/v1/namespaces/team-a/tasks"
REPORTS = "/api/v1/namespaces/team-a/serviceaccounts/reports"
EVERYTHING = {"filter": {}, "all": True}


class Recording(FakeKube):
    """Records every change, and fails the chosen ones."""

    def __init__(self) -> None:
        super().__init__()
        self.refused: dict[str, Exception] = {}
        self.changed: list[tuple[str, str, Any]] = []

    async def request(self, method: str, path: str, body: Any = None, **options: Any) -> dict[str, Any]:
        if not path.startswith(PATH):
            return await super().request(method, path, body, **options)
        name = path.rpartition("/")[2]
        if name in self.refused:
            raise self.refused[name]
        if method in ("POST", "GET"):
            return await super().request(method, path, body, **options)
        self.changed.append((method, name, body))
        return {}


class Site(Api):
    def __init__(self, count: int, phase: str) -> None:
        super().__init__()
        self.recording = Recording()
        self.auth._kube = self.recording
        self.history.rows = [
            row(number, phase=phase, created_at=CREATED - timedelta(seconds=number), labels={"team": "a"})
            for number in range(count)
        ]
        self.slept: list[float] = []

    def runner(self) -> OperationRunner:
        async def sleep(seconds: float) -> None:
            self.slept.append(seconds)

        return OperationRunner(self.history, self.recording, self.auth, self.identity.is_valid, sleep)

    async def begin(self, verb: str, body: Any = EVERYTHING) -> str:
        answer = await self.call("POST", f"{TASKS}:{verb}", body)
        assert answer.status == 202, answer.body
        location = answer.headers["location"]
        assert location == f"/v1/namespaces/team-a/operations/{answer.json['id']}"
        return location

    async def work(self) -> None:
        found = await self.history.lease_operation("x")
        assert found is not None
        await self.runner().work(found)


async def test_all_that_match_are_cancelled_and_counted_at_a_bounded_rate() -> None:
    site = Site(120, "Queued")
    location = await site.begin("cancel")
    assert (await site.call("GET", location)).json["state"] == "Running"
    await site.work()
    found = (await site.call("GET", location)).json
    assert (found["state"], found["matched"], found["done"], found["failed"]) == ("Done", 120, 120, 0)
    assert (found["createdBy"], found["verb"], found["problems"]) == ("alice", "cancel", [])
    assert len(site.recording.changed) == 120
    method, name, body = site.recording.changed[0]
    assert (method, body) == (
        "PATCH",
        [
            {"op": "test", "path": "/metadata/uid", "value": name.replace("task-", "uid-000")},
            {"op": "add", "path": "/spec/cancel", "value": True},
        ],
    )
    assert site.slept == [module.BATCH_SECONDS] * 2


async def test_one_of_very_many_tasks_gives_others_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TURN", 2)
    site = Site(220, "Queued")
    location = await site.begin("cancel")
    matched: list[int] = []
    while not matched or matched[-1] < 220:
        await site.work()
        matched.append((await site.call("GET", location)).json["matched"])
    assert matched == [100, 200, 220]
    assert (await site.call("GET", location)).json["state"] == "Done"


async def test_single_failures_are_counted_and_the_first_are_listed() -> None:
    site = Site(60, "Running")
    site.recording.refused = {f"task-{number}": Invalid("no") for number in range(30)}
    location = await site.begin("cancel")
    await site.work()
    found = (await site.call("GET", location)).json
    assert (found["state"], found["matched"], found["done"], found["failed"]) == ("Done", 60, 30, 30)
    assert len(found["problems"]) == 20
    assert found["problems"][0]["problem"]["code"] == "invalid"


async def test_each_is_retried_once_however_often_a_process_ends_in_between() -> None:
    site = Site(70, "Failed")
    await site.begin("retry")
    found = await site.history.lease_operation("x")
    assert found is not None
    # The first process ends in the middle of the second batch: what it counted is the first.
    first = await site.runner()._batch(found)
    await site.history.save_operation(first, "x")
    site.recording.refused = {"tasks": Unavailable("away")}
    with pytest.raises(Unavailable):
        await site.work()
    site.recording.refused = {}
    await site.work()
    again = await site.history.get_operation("team-a", found.id)
    assert again is not None
    assert (again.state, again.done) == ("Done", 70)
    made = site.recording.objects
    assert len(made) == 70
    body = next(iter(made.values()))
    assert body["metadata"]["annotations"]["taskflow.dev/retried-from"] == "uid-0000"
    assert body["metadata"]["labels"] == {"team": "a"}
    # Repeated as a whole, it makes no further ones.
    await site.history.save_operation(found, "x")
    await site.work()
    assert len(site.recording.objects) == 70


FORGED: list[dict[str, Any]] = [
    {"name": "../../victim/tasks/x"},
    {"name": "..%2f..%2fvictim%2ftasks%2fx"},
    {"name": ""},
    {"name": "x?dryRun=All"},
    {"name": "x/status"},
    {"namespace": "victim"},
]
BAD_SPECS = [
    {"handler": "a.b", "unknown": 1},
    {"handler": "a b"},
    {"handler": "a.b", "inputs": [{"name": "x", "key": "../victim/secret"}]},
    {"handler": "a.b", "queue": "../victim.default"},
    {"handler": "a.b", "args": ["x" * 9000]},
    {"handler": "a.b", "array": {"count": 1, "items": [1]}},
    {"handler": "a.b", "retryPolicy": "x"},
    {},
    [],
    None,
]


@pytest.mark.parametrize("verb", ["cancel", "retry"])
@pytest.mark.parametrize("forged", FORGED)
async def test_a_row_leads_nowhere_outside_the_namespace_and_stops_no_other(verb: str, forged: dict[str, Any]) -> None:
    site = Site(3, "Queued" if verb == "cancel" else "Failed")
    site.history.rows[1] = replace(site.history.rows[1], **forged)
    location = await site.begin(verb)
    await site.work()
    found = (await site.call("GET", location)).json
    assert (found["state"], found["done"], found["failed"]) == ("Done", 2, 1)
    assert [each["uid"] for each in found["problems"]] == ["uid-0001"]
    touched = [path for method, path, _ in site.recording.calls if not path.endswith("reviews")]
    touched += [f"{PATH}/{name}" for _, name, _ in site.recording.changed]
    assert {path.rpartition("/")[0] for path in touched} <= {PATH, PATH.rpartition("/")[0]}
    assert not any("victim" in path for path in touched)


@pytest.mark.parametrize("spec", BAD_SPECS)
async def test_a_specification_that_no_caller_could_create_is_not_repeated(spec: Any) -> None:
    site = Site(3, "Failed")
    site.history.rows[1] = replace(site.history.rows[1], spec=spec)
    location = await site.begin("retry")
    await site.work()
    found = (await site.call("GET", location)).json
    assert (found["done"], found["failed"], found["problems"][0]["problem"]["status"] < 500) == (2, 1, True)
    assert len(site.recording.objects) == 2


async def test_a_retry_repeats_the_resource_and_not_what_a_row_says_of_it() -> None:
    site = Site(3, "Failed")
    meta = {"namespace": "team-a", "creationTimestamp": "2026-09-20T12:00:00Z", "labels": {"real": "yes"}}
    for number, phase in ((0, "Failed"), (1, "Running")):
        site.recording.objects[f"{PATH}/task-{number}"] = {
            "metadata": meta | {"name": f"task-{number}", "uid": f"uid-{number:04d}"},
            "spec": {"handler": "real.one"},
            "status": {"phase": phase},
        }
    # Another Task has the name by now, so of the old one there is only the row.
    other = {"metadata": meta | {"name": "task-2", "uid": "other"}, "spec": {"handler": "not.this"}}
    site.recording.objects[f"{PATH}/task-2"] = other
    location = await site.begin("retry")
    await site.work()
    found = (await site.call("GET", location)).json
    assert (found["done"], [each["name"] for each in found["problems"]]) == (2, ["task-1"])
    made = [body for name, body in site.recording.objects.items() if "retried-from" in str(body)]
    told = {body["metadata"]["annotations"]["taskflow.dev/retried-from"]: body for body in made}
    assert told["uid-0000"]["spec"] == {"handler": "real.one"}
    assert told["uid-0000"]["metadata"]["labels"] == {"real": "yes"}
    assert told["uid-0002"]["spec"] == {"handler": "a.b"}


async def test_a_name_that_belongs_to_another_task_is_not_cancelled() -> None:
    site = Site(2, "Queued")
    site.recording.refused = {"task-0": Invalid("the server rejected our request due to an error in our request")}
    location = await site.begin("cancel")
    await site.work()
    found = (await site.call("GET", location)).json
    assert (found["done"], found["problems"][0]["problem"]["code"]) == (1, "conflict")


async def test_a_row_that_breaks_the_code_stops_no_other() -> None:
    site = Site(3, "Queued")
    site.recording.refused = {"task-1": RuntimeError("secret of ours")}
    location = await site.begin("cancel")
    await site.work()
    found = (await site.call("GET", location)).json
    assert (found["state"], found["done"], found["failed"]) == ("Done", 2, 1)
    assert "secret" not in str(found["problems"])


async def test_an_operation_ends_when_its_caller_loses_the_permission() -> None:
    site = Site(10, "Queued")
    location = await site.begin("cancel")
    site.clock.now += 60

    async def refused(*_: object, **__: object) -> bool:
        return False

    site.auth.allows = refused  # type: ignore[method-assign]
    await site.work()
    del site.auth.allows
    found = (await site.call("GET", location)).json
    assert (found["state"], found["done"], "may not patch" in found["message"]) == ("Failed", 0, True)
    assert site.recording.changed == []


async def test_an_operation_ends_with_the_key_that_started_it() -> None:
    site = Site(120, "Queued")
    site.kube.answers[REPORTS] = {"metadata": {"uid": "u1"}}
    for kube in (site.kube, site.recording):
        kube.allowed["system:serviceaccount:team-a:reports"] = "team-a"
    wanted = NewKey("team-a", "reports", "ci", (Scope.READ, Scope.WRITE), timedelta(days=1))
    key, text = await site.identity.keys.create(wanted, "alice")
    answer = await site.call("POST", TASKS + ":cancel", EVERYTHING, token=str(text))
    assert answer.status == 202, answer.body
    found = await site.history.lease_operation("x")
    assert found is not None
    slept: list[float] = []

    async def revoked_meanwhile(seconds: float) -> None:
        slept.append(seconds)
        await site.identity.keys.revoke(key.id)

    await OperationRunner(site.history, site.recording, site.auth, site.identity.is_valid, revoked_meanwhile).work(
        found
    )
    told = (await site.call("GET", answer.headers["location"])).json
    assert (told["state"], told["done"], len(slept)) == ("Failed", 50, 1)
    assert told["message"] == (
        "the API key of system:serviceaccount:team-a:reports that started the operation has expired or was revoked"
    )


async def test_operations_of_an_older_version_continue() -> None:
    site = Site(3, "Queued")
    location = await site.begin("cancel")
    found = await site.history.lease_operation("x")
    assert found is not None
    old = {name: value for name, value in found.caller.items() if name not in ("method", "subject")}
    await site.runner().work(replace(found, caller=old))
    assert (await site.call("GET", location)).json["state"] == "Done"


async def test_deleting_it_stops_it() -> None:
    site = Site(120, "Queued")
    location = await site.begin("cancel")
    found = await site.history.lease_operation("x")
    assert found is not None
    assert (await site.call("DELETE", location)).status == 204
    await site.runner().work(found)
    assert len(site.recording.changed) == 50
    assert (await site.call("GET", location)).status == 404
    assert (await site.call("DELETE", location)).status == 404


@pytest.mark.parametrize(
    ("verb", "body", "pointer"),
    [
        ("cancel", {"filter": {}}, ""),
        ("cancel", {"filter": {"phase": "Failed"}}, "/filter/phase"),
        ("retry", {"filter": {"phase": "Running"}}, "/filter/phase"),
        ("retry", {"filter": {"labelSelector": "a b"}}, "/filter/labelSelector"),
        ("cancel", {"filter": {"name": "x"}}, "/filter/name"),
    ],
)
async def test_contradictory_requests_are_refused(verb: str, body: Any, pointer: str) -> None:
    answer = await Site(0, "Queued").call("POST", f"{TASKS}:{verb}", body)
    assert answer.status == 422
    assert answer.json["errors"][0]["pointer"] == pointer


async def test_the_number_of_operations_is_limited_and_they_are_listed_newest_first() -> None:
    site = Site(1, "Queued")
    ids = [(await site.begin("cancel")).rpartition("/")[2] for _ in range(10)]
    answer = await site.call("POST", TASKS + ":cancel", EVERYTHING)
    assert (answer.status, answer.json["code"]) == (429, "too-many-operations")
    seen: list[str] = []
    cursor = ""
    while True:
        page = (await site.call("GET", f"/v1/namespaces/team-a/operations?limit=4{cursor}")).json
        seen += [item["id"] for item in page["items"]]
        if page["nextCursor"] is None:
            break
        cursor = f"&cursor={page['nextCursor']}"
    assert sorted(seen) == sorted(ids)


async def test_rights() -> None:
    site = Site(1, "Queued")
    for method, url, body in (
        ("POST", TASKS + ":cancel", EVERYTHING),
        ("POST", TASKS + ":retry", EVERYTHING),
        ("GET", "/v1/namespaces/team-a/operations", None),
        ("DELETE", "/v1/namespaces/team-a/operations/" + "0" * 32, None),
    ):
        assert (await site.call(method, url, body, token="bob-token")).status == 403
    assert site.history.operations == {}


async def test_a_runner_survives_outages() -> None:
    site = Site(1, "Queued")
    site.history.failure = Unavailable("away")
    runner = site.runner()

    async def sleep(seconds: float) -> None:
        site.slept.append(seconds)
        site.history.failure = None
        if len(site.slept) > 2:
            raise Forbidden("end")

    runner._sleep = sleep
    with pytest.raises(Forbidden):
        await runner.run()
    assert site.slept == [module.POLL_SECONDS] * 3


async def test_a_filter_may_have_times() -> None:
    api = Api()
    wanted = {"filter": {"createdAfter": "2026-01-01T00:00:00Z", "createdBefore": "2026-02-01T00:00:00.5+01:00"}}
    assert (await api.call("POST", "/v1/namespaces/team-a/tasks:cancel", wanted)).status == 202
    wrong = await api.call("POST", "/v1/namespaces/team-a/tasks:cancel", {"filter": {"createdAfter": 5}})
    assert (wrong.status, wrong.json["errors"][0]["pointer"]) == (422, "/filter/createdAfter")
