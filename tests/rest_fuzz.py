"""`python -m tests.rest_fuzz [CASES] [SEED]`: requests made from the OpenAPI document, right and wrong ones, against a running API with authentication.

All checks of schemathesis: no 5xx, no status, header or body that the document does not declare, nothing without a token. A failing
case is printed with a curl command, and the seed repeats it.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.integration.api.conftest import Installation, made_installation

NAMESPACE = "fuzzed"
ACCOUNT = "fuzzer"
CONFIG = f"""
[headers]
Authorization = "Bearer ${{FUZZ_TOKEN}}"

[parameters]
namespace = "{NAMESPACE}"
"""
STREAMS = ("streamEvents", "streamTaskEvents", "getLogs")
"""They may last as long as a Task: tests of their own call them."""


def command(installation: Installation, folder: Path, cases: int, seed: str) -> list[str]:
    """The command line of schemathesis for about so many cases in all."""
    port = installation.stack.port("api")
    document = installation.call("GET", "/openapi.json", account="").json
    operations = sum(map(len, document["paths"].values())) - len(STREAMS)
    config = folder / "schemathesis.toml"
    config.write_text(CONFIG)
    return [
        str(Path(sys.executable).with_name("st")),
        f"--config-file={config}",
        "run",
        f"http://127.0.0.1:{port}/openapi.json",
        f"--max-examples={max(cases // operations, 1)}",
        f"--seed={seed}",
        "--checks=all",
        # What JSON Schema cannot say is refused too: a cursor of another list, 12.0 for 12, a name beside an Idempotency-Key.
        "--exclude-checks=positive_data_acceptance",
        "--continue-on-failure",
        "--warnings=off",
        "--no-color",
        *(f"--exclude-operation-id={name}" for name in STREAMS),
    ]


def run(installation: Installation, cases: int, seed: str) -> subprocess.CompletedProcess[str]:
    """Fuzz in a namespace of its own; the exit code is 0 when there is nothing wrong."""
    installation.stack.add_namespace(NAMESPACE)
    everything = ["create", "get", "list", "watch", "patch", "delete"]
    installation.add_account(ACCOUNT, everything, ("get", "list", "patch"), namespace=NAMESPACE)
    with tempfile.TemporaryDirectory(prefix="taskflow-fuzz-") as folder:
        return subprocess.run(
            command(installation, Path(folder), cases, seed),
            env=os.environ | {"FUZZ_TOKEN": installation.tokens[ACCOUNT]},
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )


def main() -> int:
    """Start servers, fuzz, stop them."""
    cases = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    seed = sys.argv[2] if len(sys.argv) > 2 else str(secrets.randbelow(10**9))
    with made_installation() as installation:
        done = run(installation, cases, seed)
    sys.stdout.write(f"{done.stdout}{done.stderr}SEED={seed}\n")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
