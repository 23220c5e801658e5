import shlex
from pathlib import Path

import pytest

from taskflow_local import cli
from taskflow_local.state import Folder, default_state


def test_exports_survive_quotes_blanks_and_dollars_in_values() -> None:
    value = 'it\'s $HOME `x` "y"\\ z'
    (line,) = cli.export_lines({"TASKFLOW_X": value})
    assert shlex.split(line) == ["export", f"TASKFLOW_X={value}"]


def test_a_folder_without_a_stack_is_an_error_that_says_how_to_start_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in (["env"], ["status"], ["down"], ["logs", "etcd"]):
        assert cli.main([*command, "--state", str(tmp_path)]) == cli.EXIT_FAILED
        assert "no stack there; start one with: " in capsys.readouterr().err


def test_the_state_folder_may_stand_before_or_after_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments in (["--state", str(tmp_path / "x"), "env"], ["env", "--state", str(tmp_path / "x")]):
        cli.main(arguments)
        assert str(tmp_path / "x") in capsys.readouterr().err


def test_the_log_of_an_unknown_component_names_the_known_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Folder(tmp_path).create()
    (tmp_path / "lock").touch()
    assert cli.main(["--state", str(tmp_path), "logs", "mysql"]) == cli.EXIT_FAILED
    assert "mysql: expected pod/NAME, migrate or one of etcd" in capsys.readouterr().err
    assert cli.main(["--state", str(tmp_path), "logs", "etcd"]) == cli.EXIT_FAILED
    assert "etcd was never started" in capsys.readouterr().err


def test_help_lists_every_command_and_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert all(command.summary in text for command in cli.COMMANDS)
    assert "exit codes:" in text
    assert "development and tests only" in text


@pytest.mark.parametrize(
    ("environ", "root", "expected"),
    [
        ({"TASKFLOW_LOCAL_STATE": "/x", "XDG_STATE_HOME": "/y"}, True, "/x"),
        ({"XDG_STATE_HOME": "/y"}, True, "/var/lib/taskflow/default"),
        ({"XDG_STATE_HOME": "/y"}, False, "/y/taskflow/default"),
    ],
)
def test_the_default_state_folder(environ: dict[str, str], root: bool, expected: str) -> None:
    assert default_state(environ, root=root) == Path(expected)
