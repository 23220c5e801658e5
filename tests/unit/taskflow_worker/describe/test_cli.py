from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[4]
MODULE = '''
from taskflow_worker.sdk import handler
print("imported")
@handler("reports.build")
def build(year: int = 2026) -> None:
    """Build it."""
'''


def run(folder: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    places = [str(folder), str(ROOT / "examples"), str(ROOT / "examples" / "celery_app")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(places)} | environ
    command = [sys.executable, "-m", "taskflow_worker", "describe", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_a_manifest_is_printed_and_compared(tmp_path: Path) -> None:
    (tmp_path / "reports.py").write_text(MODULE)
    done = run(tmp_path, "--name", "reports", TASKFLOW_WORKER_HANDLERS="reports")
    assert done.returncode == 0, done.stderr
    assert [each["name"] for each in yaml.safe_load(done.stdout)["spec"]["handlers"]] == ["reports.build"]
    file = tmp_path / "template.yaml"
    file.write_text(done.stdout)
    same = run(tmp_path, "--module", "reports", "--check", str(file))
    assert (same.returncode, same.stdout) == (0, "")
    file.write_text(done.stdout.replace("type: integer", "type: string"))
    other = run(tmp_path, "--module", "reports", "--check", str(file))
    assert other.returncode == 1
    assert "+      type: integer" in other.stdout.replace("        type", "      type")


def test_the_examples_are_described(tmp_path: Path) -> None:
    done = run(tmp_path, "--module", "weather_handlers", "--app", "shop:app")
    assert done.returncode == 0, done.stderr
    found = {each["name"]: each for each in yaml.safe_load(done.stdout)["spec"]["handlers"]}
    assert found["weather.by_month"]["kwargs"]["properties"] == {"year": {"type": "integer"}}
    assert found["shop.reserve"]["kwargs"]["required"] == ["item", "in_stock_at"]
    assert "self" not in found["shop.reserve"]["kwargs"]["properties"]


def test_what_is_unusable_ends_with_2(tmp_path: Path) -> None:
    absent = run(tmp_path, "--module", "does_not_exist")
    assert absent.returncode == 2
    assert absent.stderr.startswith("taskflow-worker describe: handlers of module does_not_exist cannot be imported")
    none = run(tmp_path, "--module", "weather_handlers", "--check", str(tmp_path / "absent.yaml"))
    assert none.returncode == 2
    assert "absent.yaml: cannot be read" in none.stderr
