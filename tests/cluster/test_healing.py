"""What is lost and what is changed under a trickle of Tasks: it goes on by itself, or by the commands of the page.

The development services have no volumes here, so each loses its data with its pod.
"""

from __future__ import annotations

import base64
import json
import time
import urllib.error
from itertools import count
from urllib.parse import urlsplit, urlunsplit

import pytest

from tests.cluster.installation import NAMESPACE, RELEASE, WORK, Cluster, Load, all_succeeded, task
from tests.documents import ROOT
from tests.e2e.product import eventually

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]
HEALED_SECONDS = 60
COMPONENTS = ("postgresql", "redis", "minio", "operator", "api", "provisioner")
_NUMBERS = count()


def _works(cluster: Cluster) -> str:
    """Empty if a new Task goes all the way: created by REST, run, and read from the history; all of REST is ready."""
    name, path = f"probe-{next(_NUMBERS)}", f"/v1/namespaces/{WORK}/tasks"
    try:
        with cluster.api() as api:
            api.call("POST", path, {"name": name, "spec": {"handler": "taskflow.echo", "kwargs": {"value": name}}})
            done = cluster.kubectl(
                "wait", "-n", WORK, f"tft/{name}", "--for=condition=Complete", "--timeout=10s", check=False
            )
            if "condition met" not in done:
                return done
            # The history follows the resource by a moment.
            newest = f"{path}?phase=Succeeded"
            eventually(
                lambda: [each["name"] for each in api.call("GET", newest)["items"]], lambda names: name in names, 10
            )
            checks = {check["name"]: check["ok"] for check in api.call("GET", "/readyz?verbose")["checks"]}
    except (OSError, AssertionError, urllib.error.HTTPError) as error:
        return str(error)
    return "" if all(checks.values()) else str(checks)


def _delete(cluster: Cluster, namespace: str, selector: str) -> None:
    cluster.kubectl("delete", "pod", "-n", namespace, "-l", selector, "--wait", "--timeout=120s")


@pytest.mark.parametrize("component", [*COMPONENTS, "worker"])
def test_after_the_loss_of_a_pod_everything_goes_on_within_a_minute(installed: Cluster, component: str) -> None:
    eventually(lambda: _works(installed), lambda why: not why, 120)
    long = [task(f"during-{component}-{n}", "taskflow.sleep", kwargs={"seconds": 15}) for n in range(2)]
    with Load(installed, f"lost-{component}", 3) as load:
        installed.kubectl("create", "-f", "-", stdin="\n---\n".join(map(json.dumps, long)))
        eventually(lambda: len(load.names), lambda number: number >= 9)
        if component == "worker":
            _delete(installed, WORK, "taskflow.dev/pool=main")
        else:
            _delete(installed, NAMESPACE, f"app.kubernetes.io/component={component}")
        gone = time.monotonic()
        eventually(lambda: _works(installed), lambda why: not why, HEALED_SECONDS)
        print(f"\n{component}: a new Task went all the way {time.monotonic() - gone:.0f} s after its pod was gone")
    all_succeeded(installed, load, *(each["metadata"]["name"] for each in long))


def _with_password(url: str, password: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"{parts.username}:{password}@{parts.hostname}:{parts.port}"))


def _rotate(cluster: Cluster) -> None:
    """Other passwords of the operator and the API, in Redis and MinIO."""
    name = f"{RELEASE}-dev-services"
    found = {key: base64.b64decode(text).decode() for key, text in cluster.secret(NAMESPACE, name).items()}
    changed = {key: _with_password(found[key], f"changed-{key}") for key in ("redis-url", "redis-api-url")}
    changed["s3-secret-key"] = "changed-secret-key"
    cluster.kubectl(
        "patch", "secret", "-n", NAMESPACE, name, "--type=merge", f"--patch={json.dumps({'stringData': changed})}"
    )


def test_passwords_change_under_tasks_by_the_commands_of_the_page(installed: Cluster) -> None:
    page = (ROOT / "docs/howto/logins.md").read_text().partition("## Change a password of a service")[2]
    commands = [line.split()[1:] for line in page.splitlines() if line.startswith("kubectl rollout")]
    assert len(commands) == 5
    with Load(installed, "rotation", 3) as load:
        eventually(lambda: len(load.names), lambda number: number >= 9)
        _rotate(installed)
        for command in commands:
            installed.kubectl(*command, "--timeout=180s") if command[1] == "status" else installed.kubectl(*command)
        eventually(lambda: _works(installed), lambda why: not why, HEALED_SECONDS)
    all_succeeded(installed, load)


def test_a_worker_secret_that_somebody_changed_is_set_back_and_stops_no_upgrade(installed: Cluster) -> None:
    def url() -> str:
        return base64.b64decode(installed.secret(WORK, "taskflow-worker")["TASKFLOW_REDIS_URL"]).decode()

    user = urlsplit(url()).username
    changed = {"stringData": {"TASKFLOW_REDIS_URL": "redis://nobody:wrong@127.0.0.1:6379/0"}}
    installed.kubectl("patch", "secret", "-n", WORK, "taskflow-worker", f"--patch={json.dumps(changed)}")
    # With another password: who could write the Secret could read it.
    eventually(url, lambda found: urlsplit(found).username == user, 90)
    installed.install("upgrade")
    eventually(lambda: _works(installed), lambda why: not why, HEALED_SECONDS)
