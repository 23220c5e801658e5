"""An application with accounts, and their users."""

from taskflow_api.identity.service_accounts import Binding
from tests.unit.taskflow_api.fakes import Answer, Api

REGISTER, TOKEN, TASKS = "/v1/auth/register", "/v1/auth/token", "/v1/namespaces/team-a/tasks"
REPORTS = "/api/v1/namespaces/team-a/serviceaccounts/reports"
PASSWORD = "correct horse battery"
BINDING = Binding("team-a", "reports", "u1")


def made() -> Api:
    api = Api(register=True)
    api.kube.answers[REPORTS] = {"metadata": {"uid": "u1"}}
    api.kube.allowed["system:serviceaccount:team-a:reports"] = "team-a"
    return api


async def send(
    api: Api, path: str, username: str = "ann", password: str = PASSWORD, client: str = "203.0.113.5"
) -> Answer:
    return await api.call("POST", path, {"username": username, "password": password}, token="", client=client)


async def token_of(api: Api) -> str:
    await send(api, REGISTER)
    await api.accounts.bind("ann", BINDING)
    answer = await send(api, TOKEN)
    assert answer.status == 200, answer.body
    return str(answer.json["accessToken"])
