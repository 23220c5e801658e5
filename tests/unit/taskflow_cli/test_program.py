from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import click
import pytest
import yaml

from taskflow_cli.options import Command
from taskflow_cli.program import NAMES, SECTIONS, program
from taskflow_cli.shells import kubectl_main
from tests.unit.taskflow_cli.fake import KUBECONFIG, Console, FakeServer, task

NOT_FOR_A_START = ["asyncio", "importlib.metadata", "email.message_from_file", "kubernetes", "pydantic", "aiohttp",
                   "httpx2", "requests", "urllib3", "rich", "taskflow_core", "taskflow_client", "taskflow_local",
                   "multiprocessing", "unittest", "click.testing", "concurrent", "logging", "sqlite3"]  # fmt: skip
"""What costs time and no `get` needs."""


def leaves(command: click.Command, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], click.Command]]:
    if isinstance(command, click.Group):
        context = click.Context(command)
        inner = [(name, command.get_command(context, name)) for name in command.list_commands(context)]
        return [leaf for name, each in inner if each is not None for leaf in leaves(each, (*path, name))]
    return [(path, command)]


@pytest.mark.parametrize(
    ("path", "command"), leaves(program), ids=lambda each: " ".join(each) if isinstance(each, tuple) else ""
)
def test_every_command_has_a_help_with_examples(run: Console, path: tuple[str, ...], command: click.Command) -> None:
    assert isinstance(command, Command)
    assert command.examples
    ran = run(*path, "--help")
    assert (ran.code, ran.err) == (0, "")
    for arguments, does in command.examples:
        # `dev mine.py` is `dev start mine.py`.
        assert arguments.startswith(" ".join(path).removesuffix(" start"))
        assert f"  # {does}\n  taskflow {arguments}\n" in ran.out
    for parameter in command.params:
        if isinstance(parameter, click.Option) and parameter.name != "output":
            assert parameter.help, parameter.name


def test_the_help_names_what_there_is_and_says_of_each_what_it_does(run: Console) -> None:
    assert run("--help").code == 0
    for section in SECTIONS.values():
        for name, about in section.items():
            command = program.get_command(click.Context(program), name)
            assert command is not None
            assert about in run("-h").out
    assert sorted(NAMES) == sorted(set(NAMES))
    folder = Path(sys.modules["taskflow_cli.commands"].__path__[0])
    assert sorted(NAMES) == sorted(path.stem for path in folder.glob("*.py") if path.stem != "__init__")


def test_without_arguments_the_help_is_printed_and_nothing_was_done(run: Console) -> None:
    ran = run()
    assert (ran.code, ran.out) == (2, "")
    assert "Usage: taskflow" in ran.err


def test_a_start_imports_nothing_that_costs_time(tmp_path: Path) -> None:
    path = tmp_path / "config"
    path.write_text(KUBECONFIG.replace("https://kube.test:6443", "http://127.0.0.1:1"))
    code = (
        "import json, sys; from taskflow_cli.__main__ import main\n"
        "code = main(['get', 'x'])\n"
        "print(json.dumps([code, list(sys.modules)]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={"KUBECONFIG": str(path)}, capture_output=True, text=True, check=True
    )
    code_of_get, modules = json.loads(done.stdout)
    assert code_of_get == 7
    assert "error: cannot reach http://127.0.0.1:1: Connection refused" in done.stderr
    assert [name for name in NOT_FOR_A_START if name in modules] == []
    commands = [name for name in modules if name.startswith("taskflow_cli.commands.")]
    assert commands == ["taskflow_cli.commands.get"]


def test_kubectl_asks_for_completions(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "config"
    path.write_text(KUBECONFIG)
    monkeypatch.setenv("KUBECONFIG", str(path))

    def completed(*arguments: str) -> list[str]:
        monkeypatch.setattr(sys, "argv", ["kubectl_complete-taskflow", *arguments])
        assert kubectl_main() == 0
        return capsys.readouterr().out.splitlines()

    assert "submit\tCreate a Task from a handler or a file." in completed("sub")
    assert completed("list", "--context", "") == ["dev", "prod", ":4"]
    assert completed("list", "-o", "j") == ["json", "jsonpath", ":4"]
    assert completed("list", "--phase", "S") == ["suspended", "succeeded", ":4"]
    assert completed("submit", "-f", "") == [":0"]


def test_names_of_tasks_are_completed_from_the_namespace_that_is_given(
    server: FakeServer, run: Console, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    server.add(task("hello"), task("help", namespace="other"))
    for namespace, names in (("team", ["plain,hello"]), ("other", ["plain,help"])):
        monkeypatch.setenv("COMP_WORDS", f"taskflow get -n {namespace} he")
        monkeypatch.setenv("COMP_CWORD", "4")
        monkeypatch.setenv("_TASKFLOW_COMPLETE", "bash_complete")
        with pytest.raises(SystemExit):
            run()
        assert capsys.readouterr().out.splitlines() == names


def test_output_of_completion_names_no_other_program(run: Console) -> None:
    for shell in ("bash", "zsh", "fish"):
        out = run("completion", shell).out
        assert "_TASKFLOW_COMPLETE" in out
    assert run("completion", "csh").code == 2


def test_yaml_and_json_are_the_same_object(server: FakeServer, run: Console) -> None:
    server.add(task("a", kwargs={"text": "no", "date": "2026-01-01"}))
    assert yaml.safe_load(run("get", "a", "-o", "yaml").out) == json.loads(run("get", "a", "-o", "json").out)
