"""The commands that are printed work wherever they are pasted."""

import shlex
import subprocess
from pathlib import Path

import pytest

from taskflow_local import cli, invocation
from taskflow_local.demo import to_try

ELSEWHERE = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent"}


def paste(line: str) -> subprocess.CompletedProcess[str]:
    """Into a shell that knows nothing of this installation, in another folder."""
    return subprocess.run(["sh", "-c", line], cwd="/", env=ELSEWHERE, capture_output=True, text=True, check=False)


def test_a_command_works_where_path_does_not_lead_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", ELSEWHERE["PATH"])
    assert Path(shlex.split(invocation.program())[0]).is_absolute()
    done = paste(invocation.command("--help"))
    assert (done.returncode, "exit codes:" in done.stdout) == (0, True), done.stderr


def test_it_is_short_where_path_leads_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda _: None)
    long = invocation.program()
    monkeypatch.setattr("shutil.which", lambda _: long)
    assert invocation.program() == "taskflow-local"
    monkeypatch.setattr("shutil.which", lambda _: "/usr/bin/true")
    assert invocation.program() == long


def test_without_a_program_beside_python_it_is_a_module(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(invocation, "NAME", "no-such-program")
    done = paste(invocation.command("--help"))
    assert (done.returncode, "exit codes:" in done.stdout) == (0, True), done.stderr


def test_a_folder_with_blanks_and_quotes_survives_the_shell() -> None:
    state = Path("/a b/it's $HOME")
    assert shlex.split(invocation.command("env", state=state))[-2:] == ["--state", str(state)]


def test_the_hint_of_an_error_can_be_pasted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", ELSEWHERE["PATH"])
    assert cli.main(["status", "--state", str(tmp_path / "my stack")]) == cli.EXIT_FAILED
    _, _, hint = capsys.readouterr().err.strip().partition("start one with: ")
    done = paste(f"{hint} --help")
    assert (done.returncode, "--handlers" in done.stdout) == (0, True), done.stderr


def test_the_demo_ends_with_commands_of_files_that_exist(tmp_path: Path) -> None:
    env, *commands = to_try(tmp_path, Path(__file__).parents[3] / "examples")
    assert "no stack there" in paste(env).stderr
    words = [shlex.split(each) for each in commands]
    assert {each[0] for each in words} == {"kubectl"}
    files = [each[each.index("-f") + 1] for each in words if "-f" in each]
    assert files
    assert all(Path(file).is_absolute() and Path(file).exists() for file in files)
