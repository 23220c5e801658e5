from pathlib import Path

import pytest

from taskflow_api.settings import OidcSettings, RegisterSettings
from taskflow_local.commands import CommandContext
from taskflow_local.components import ALL, COMPONENTS, in_order
from taskflow_local.environments import API_SETTINGS, client_environment, environment, worker_environment
from taskflow_local.errors import LocalError
from taskflow_local.state import Folder, StackState


def make_state(*components: str) -> StackState:
    names = components or ALL
    ports = {port: 15000 + number for number, port in enumerate(p for c in COMPONENTS.values() for p in c.ports)}
    return StackState(components=list(names), ports=ports, client_token="client-token")


def make_folder(tmp_path: Path) -> Folder:
    folder = Folder(tmp_path / "state")
    folder.create()
    return folder


def test_components_come_after_what_they_need_whatever_the_order_asked_for() -> None:
    names = [each.name for each in in_order(("node", "kube-apiserver", "etcd"))]
    assert names == ["etcd", "kube-apiserver", "node"]


def test_a_missing_dependency_of_a_component_is_named() -> None:
    with pytest.raises(LocalError, match="component kube-apiserver needs etcd"):
        in_order(("kube-apiserver",))
    with pytest.raises(LocalError, match="unknown component 'mysql': expected some of etcd"):
        in_order(("mysql",))


def test_no_argument_of_a_component_contains_a_secret(tmp_path: Path) -> None:
    state = make_state(*COMPONENTS)
    programs = {name: Path("/bin") / name for each in COMPONENTS.values() for name in each.programs}
    context = CommandContext(make_folder(tmp_path), state, programs)
    secrets = [value for name, value in state.model_dump().items() if name.endswith(("_token", "_password", "_key"))]
    assert len(secrets) == 13
    secrets += state.worker("default").model_dump(exclude={"since"}).values()
    for component in COMPONENTS.values():
        arguments = " ".join(component.argv(context))
        assert not [secret for secret in secrets if secret in arguments], component.name


def test_files_with_secrets_are_readable_by_their_owner_only(tmp_path: Path) -> None:
    folder = make_folder(tmp_path)
    state = make_state()
    folder.save(state)
    context = CommandContext(
        folder, state, {"redis-server": Path("/bin/redis"), "kube-apiserver": Path("/bin/apiserver")}
    )
    COMPONENTS["redis"].argv(context)
    COMPONENTS["kube-apiserver"].argv(context)
    files = [folder.conf / "redis.conf", folder.conf / "tokens.csv", folder.root / "stack.json"]
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}


def test_a_component_gets_a_clean_environment_with_what_it_must_know(tmp_path: Path) -> None:
    state, folder = make_state(), make_folder(tmp_path)
    base = {
        "PATH": "/bin",
        "AWS_SECRET_ACCESS_KEY": "of the user",
        "PYTHONPATH": "",
        "TASKFLOW_REGISTER_SIGNING_KEY": "s",
    }
    operator = environment("operator", state, folder, base)
    assert operator["TASKFLOW_TOKEN_KEY"] == state.token_key
    assert len(state.token_key) == 64
    login = f"taskflow-operator:{state.redis_operator_password}"
    assert operator["TASKFLOW_REDIS_URL"] == f"redis://{login}@127.0.0.1:{state.ports['redis']}/0"
    assert operator["KUBECONFIG"].endswith("/conf/operator.kubeconfig")
    assert "AWS_SECRET_ACCESS_KEY" not in operator
    assert "PYTHONPATH" not in operator
    assert "TASKFLOW_REGISTER_SIGNING_KEY" not in operator
    api = environment("api", state, folder, base)
    assert "TASKFLOW_TOKEN_KEY" not in api
    assert api["TASKFLOW_REGISTER_SIGNING_KEY"] == "s"
    assert "TASKFLOW_REDIS_URL" not in api
    assert api["TASKFLOW_LIMITS_URL"] == api["TASKFLOW_API_BROKER_URL"]
    assert api["TASKFLOW_API_BROKER_URL"].startswith(f"redis://taskflow-api:{state.redis_api_password}@")
    assert api["TASKFLOW_API_PORT"] == str(state.ports["api"])
    # Its own user, which cannot copy objects.
    assert (api["TASKFLOW_S3_ACCESS_KEY"], api["TASKFLOW_S3_SECRET_KEY"]) == ("taskflow-api", state.s3_api_secret_key)
    assert environment("redis", state, folder, base) == {"PATH": "/bin", "HOME": str(folder.data)}


def test_every_authentication_setting_reaches_the_api() -> None:
    made = [
        f"{settings.model_config['env_prefix']}{name}".upper()
        for settings in (OidcSettings, RegisterSettings)
        for name in settings.model_fields
    ]
    assert set(made) < set(API_SETTINGS)


def test_workers_learn_redis_and_storage_but_no_database_login() -> None:
    state = make_state()
    secret = worker_environment(state, "team-a")
    assert "TASKFLOW_DATABASE_URL" not in secret
    assert set(secret) == {
        "TASKFLOW_REDIS_URL",
        "TASKFLOW_S3_ENDPOINT",
        "TASKFLOW_S3_BUCKET",
        "TASKFLOW_S3_REGION",
        "TASKFLOW_S3_ACCESS_KEY",
        "TASKFLOW_S3_SECRET_KEY",
    }
    login = state.worker("team-a")
    assert f"//taskflow-worker-team-a:{login.redis_password}@" in secret["TASKFLOW_REDIS_URL"]
    assert secret["TASKFLOW_S3_SECRET_KEY"] == login.s3_secret_key
    assert worker_environment(state, "team-b")["TASKFLOW_REDIS_URL"] != secret["TASKFLOW_REDIS_URL"]


def test_a_client_learns_only_what_the_stack_has(tmp_path: Path) -> None:
    folder = make_folder(tmp_path)
    state = make_state("redis")
    state.client_token = None
    assert set(client_environment(state, folder, {"PATH": "/bin"})) == {"TASKFLOW_REDIS_URL"}


def test_path_gains_a_folder_only_if_local_mode_provides_kubectl(tmp_path: Path) -> None:
    folder = make_folder(tmp_path)
    assert "PATH" not in client_environment(make_state(), folder, {"PATH": "/bin"})
    (folder.bin / "kubectl").touch()
    assert client_environment(make_state(), folder, {"PATH": "/bin"})["PATH"] == f"{folder.bin}:/bin"


def test_storage_is_versitygw_where_there_is_no_minio(tmp_path: Path) -> None:
    state = make_state("versitygw")
    env = client_environment(state, make_folder(tmp_path), {})
    assert env["TASKFLOW_S3_ENDPOINT"] == f"http://127.0.0.1:{state.ports['versitygw']}"
