import pytest

from taskflow_api.identity import cli

URL = "postgresql+psycopg://u:hunter2@127.0.0.1:1/db"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "required: kind"),
        (["keys"], "required: action"),
        (["keys", "create"], "required: --namespace, --service-account"),
        (["keys", "create", "--namespace", "Team A", "--service-account", "x"], "expected a Kubernetes name"),
        (
            ["keys", "create", "--namespace", "a", "--service-account", "x", "--scope", "admin"],
            "invalid choice: 'admin'",
        ),
        (["keys", "create", "--namespace", "a", "--service-account", "x", "--days", "0"], "expected a number of days"),
        (
            ["keys", "create", "--namespace", "a", "--service-account", "x", "--days", "367"],
            "expected a number of days",
        ),
        (
            ["keys", "create", "--namespace", "a", "--service-account", "x", "--days", "nan"],
            "expected a number of days",
        ),
        (["accounts", "bind", "ann", "0123", "reports"], "expected a Kubernetes name"),
        (["accounts", "bind", "ann", "a/b"], "required: NAMESPACE/SERVICEACCOUNT"),
        (["serve"], "invalid choice: 'serve'"),
    ],
)
def test_wrong_arguments_give_one_line_and_exit_code_2(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err.splitlines()[-1]


def test_a_missing_database_url_is_named_with_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["keys", "list", "--namespace", "a"]) == cli.USAGE
    assert "TASKFLOW_DATABASE_URL: Field required" in capsys.readouterr().err


def test_missing_kubernetes_credentials_are_reported_with_exit_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TASKFLOW_DATABASE_URL", URL)
    monkeypatch.setenv("KUBECONFIG", "/no/such/file")
    assert cli.main(["keys", "list", "--namespace", "a"]) == cli.USAGE
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "no Kubernetes credentials" in said
    assert "hunter2" not in said
