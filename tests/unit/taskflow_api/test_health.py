import pytest

from taskflow_core.errors import Unavailable
from tests.unit.taskflow_api.fakes import Api


@pytest.mark.parametrize(
    ("away", "status", "said"),
    [("", 200, "ok"), ("objects", 200, "degraded"), ("postgresql", 503, "unready"), ("kubernetes", 503, "unready")],
)
async def test_readiness_needs_kubernetes_and_postgresql_and_not_the_objects(away: str, status: int, said: str) -> None:
    api = Api()
    failure = Unavailable("away at 10.1.2.3")
    if away == "objects":
        api.objects.failure = failure
    if away == "postgresql":
        api.history.failure = failure
    if away == "kubernetes":
        api.kube.failure = failure
    plain = await api.call("GET", "/readyz", token="")
    assert (plain.status, plain.json) == (status, {"status": said})
    verbose = await api.call("GET", "/readyz?verbose", token="")
    assert [check["name"] for check in verbose.json["checks"] if not check["ok"]] == ([away] if away else [])
    assert b"10.1.2.3" not in verbose.body
    assert (await api.call("GET", "/livez", token="")).status == 200


async def test_readiness_asks_at_most_once_a_second_however_many_ask() -> None:
    api = Api()
    for _ in range(5):
        await api.call("GET", "/readyz", token="")
    assert len(api.kube.calls) == 1
