"""`python -m taskflow_operator.install.smoke`: one Task through the REST API; what `helm test` and `skaffold verify`
run in a pod.

Exit codes: 0 it succeeded, 1 it did not, or the API refused it, 143 stopped by SIGTERM.
"""

from __future__ import annotations

import json
import os
import sys
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path

from taskflow_core.end_on_sigterm import end_on_sigterm

TOKEN = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
TIMEOUT_SECONDS = 240


def call(method: str, path: str, body: object = None) -> dict[str, object]:
    """One request to the API as this pod's ServiceAccount."""
    request = urllib.request.Request(  # noqa: S310 - the chart gives the address
        os.environ["TASKFLOW_API_URL"] + path,
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {TOKEN.read_text()}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=20) as answer:  # noqa: S310 - as above
        found: dict[str, object] = json.load(answer)
        return found


def call_with_retries(method: str, path: str, body: object = None) -> dict[str, object]:
    """The same, with retries while the installation starts."""
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while True:
        try:
            return call(method, path, body)
        except urllib.error.HTTPError as error:
            detail = error.read().decode(errors="replace")
            if error.code < 500 or time.monotonic() > deadline:  # noqa: PLR2004 - HTTP's own border
                raise SystemExit(f"{method} {path}: {error.code} {detail}") from None
        except OSError as error:
            if time.monotonic() > deadline:
                raise SystemExit(f"{method} {path}: {error}") from None
        time.sleep(1)


def main() -> int:
    """0 when the Task succeeded."""
    end_on_sigterm()
    tasks = f"/v1/namespaces/{os.environ['TASKFLOW_NAMESPACE']}/tasks"
    name = f"smoke-{uuid.uuid4().hex[:8]}"
    spec = {"handler": "taskflow.echo", "kwargs": {"value": name}, "queue": os.environ["TASKFLOW_QUEUE"]}
    call_with_retries("POST", tasks, {"name": name, "spec": spec})
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while True:
        task = call_with_retries("GET", f"{tasks}/{name}")
        status = task.get("status") or task
        phase = status.get("phase") if isinstance(status, dict) else None
        if phase in ("Succeeded", "Failed", "Cancelled") or time.monotonic() > deadline:
            break
        time.sleep(0.5)
    print(f"Task {name}: {phase}")  # noqa: T201 - said to a person
    return 0 if phase == "Succeeded" else 1


if __name__ == "__main__":
    sys.exit(main())
