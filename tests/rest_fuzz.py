"""`python -m tests.rest_fuzz [CASES] [SEED]`: fuzzes a running API with requests from its OpenAPI document.

Runs all checks of schemathesis: no 5xx, no status, header or body that the document does not declare, and no access
without a token. A failing case is printed as a curl command, and the seed repeats it.
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
"""Streams may last as long as a Task. Other tests cover them."""


def command(installation: Installation, folder: Path, cases: int, seed: str) -> list[str]:
    """The command line of schemathesis for about this many cases in total."""
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
        # The API also rejects what JSON Schema cannot express: a cursor of another list, 12.0 for 12, two names.
        "--exclude-checks=positive_data_acceptance",
        "--continue-on-failure",
        "--warnings=off",
        "--no-color",
        *(f"--exclude-operation-id={name}" for name in STREAMS),
    ]


def run(installation: Installation, cases: int, seed: str) -> subprocess.CompletedProcess[str]:
    """Fuzz in a separate namespace. The exit code is 0 if there are no failures."""
    installation.stack.add_namespace(NAMESPACE)
    everything = ["create", "get", "list", "watch", "patch", "delete"]
    installation.add_account(ACCOUNT, everything, ("get", "list", "patch"), tuple(everything), namespace=NAMESPACE)
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
    """Start the servers, fuzz, and stop them."""
    cases = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    seed = sys.argv[2] if len(sys.argv) > 2 else str(secrets.randbelow(10**9))
    with made_installation() as installation:
        done = run(installation, cases, seed)
    sys.stdout.write(f"{done.stdout}{done.stderr}SEED={seed}\n")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
