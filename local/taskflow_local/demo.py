"""`taskflow-local demo`: runs real work through the whole product and explains each step."""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
import subprocess
import time
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from minio import Minio

from taskflow_core import resources
from taskflow_local.errors import LocalError
from taskflow_local.invocation import command, environment
from taskflow_local.stack import Stack

WAIT_SECONDS = 120
DATASET = "default/datasets/seattle-weather.csv"
ROWS = """\
select t.name, t.phase, a.attempt, a.outcome, a.reason, a.run_ms
from tasks t join attempts a using (uid) order by t.name, a.attempt"""


@dataclass
class Demo:
    """One run of the demo against a running stack."""

    stack: Stack
    examples: Path
    results: Path
    environ: Mapping[str, str] = field(init=False)
    started: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.environ = {**os.environ, **self.stack.env()}

    def run(self) -> None:
        """Run all steps. Raises LocalError if a step does not end as expected."""
        self._upload()
        self._pool()
        self._tasks()
        self._refused()
        self._table()
        self._rest()
        self._history()
        self._objects()

    def _upload(self) -> None:
        spec = importlib.util.find_spec("vega_datasets")
        if spec is None or not spec.submodule_search_locations:
            raise LocalError("the package vega-datasets is missing; install taskflow-operator[demo]")
        source = Path(spec.submodule_search_locations[0]) / "_data" / "seattle-weather.csv"
        rows = len(source.read_text().splitlines()) - 1
        _title(
            "The input", f"{rows} days of weather from the package vega-datasets, into the object store as {DATASET}"
        )
        self._s3().fput_object(self.environ["TASKFLOW_S3_BUCKET"], DATASET, str(source), content_type="text/csv")

    def _pool(self) -> None:
        _title("The workers", "a WorkerPool becomes a Deployment; its pods are warm Celery workers")
        self._show("kubectl", "apply", "-f", str(self.examples / "pool.yaml"))
        self._show("kubectl", "wait", "tfp/main", "--for=condition=Ready", f"--timeout={WAIT_SECONDS}s")

    def _tasks(self) -> None:
        _title("The work", "six Tasks: one that says hello, four reports, and one whose first attempt fails")
        names = ("hello.yaml", "weather.yaml", "retry.yaml")
        # Left by an earlier run in the same stack: a finished Task never runs again.
        self._kubectl(
            "delete", "--ignore-not-found", *(part for name in names for part in ("-f", str(self.examples / name)))
        )
        self._show("kubectl", "apply", *(part for name in names for part in ("-f", str(self.examples / name))))
        self._follow()

    def _follow(self) -> None:
        """Print each change of a Task until all have finished."""
        printed: dict[str, str] = {}
        deadline = time.monotonic() + WAIT_SECONDS
        start = time.monotonic()
        while True:
            items = json.loads(self._kubectl("get", "tft", "-o", "json"))["items"]
            for item in items:
                status = item.get("status") or {}
                line = f"{status.get('phase', 'New'):<10} attempt {status.get('attempt', 1)}  {_detail(status)}"
                if printed.get(item["metadata"]["name"]) != line:
                    printed[item["metadata"]["name"]] = line
                    print(f"  {time.monotonic() - start:5.1f} s  {item['metadata']['name']:<13} {line}", flush=True)
            phases = [(item.get("status") or {}).get("phase") for item in items]
            if all(phase in ("Succeeded", "Failed") for phase in phases):
                break
            if time.monotonic() > deadline:
                raise LocalError(
                    f"not all Tasks finished in {WAIT_SECONDS} s; see: "
                    + command("logs", "operator", state=self.stack.folder.root)
                )
            time.sleep(0.1)
        if "Failed" in phases:
            raise LocalError("a Task failed; see: kubectl describe tft")

    def _refused(self) -> None:
        _title("A mistake", "is refused by the API server at once, with each field and what to do")
        self._show("kubectl", "apply", "-f", str(self.examples / "refused.yaml"), fails=True)

    def _table(self) -> None:
        _title("kubectl", "the state is in the resources")
        self._show("kubectl", "get", "tft")

    def _rest(self) -> None:
        path = "/v1/namespaces/default/tasks/weather-2015"
        _title("REST", "the same, for clients outside Kubernetes, under Kubernetes' own RBAC")
        print(f'  $ curl -H "Authorization: Bearer $TASKFLOW_API_TOKEN" $TASKFLOW_API_URL{path}')
        request = urllib.request.Request(  # noqa: S310 - our own http address
            self.environ["TASKFLOW_API_URL"] + path,
            headers={"Authorization": f"Bearer {self.environ['TASKFLOW_API_TOKEN']}"},
        )
        with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310
            answer = json.load(response)
        kept = ("name", "phase", "attempt", "createdAt", "startedAt", "finishedAt", "result", "live")
        print(_indent(json.dumps({key: answer[key] for key in kept}, indent=2)))

    def _history(self) -> None:
        _title("PostgreSQL", "every attempt, kept when the resources are gone")
        url = self.environ["TASKFLOW_DATABASE_URL"].replace("postgresql+psycopg://", "postgresql://")
        print(_indent(ROWS))
        with psycopg.connect(url) as connection:
            cursor = connection.execute(ROWS)
            heads = [column.name for column in cursor.description or ()]
            rows = [["" if value is None else str(value) for value in row] for row in cursor.fetchall()]
        widths = [max(len(row[i]) for row in [heads, *rows]) for i in range(len(heads))]
        for row in [heads, ["-" * width for width in widths], *rows]:
            print("    " + "  ".join(value.ljust(width) for value, width in zip(row, widths, strict=True)).rstrip())

    def _objects(self) -> None:
        _title("Objects", "what the Tasks wrote, each under NAMESPACE/UID/ATTEMPT/")
        client, bucket = self._s3(), self.environ["TASKFLOW_S3_BUCKET"]
        self.results.mkdir(parents=True, exist_ok=True)
        for item in json.loads(self._kubectl("get", "tft", "-l", "example=weather", "-o", "json"))["items"]:
            for output in item["status"]["outputs"]:
                path = self.results / f"{item['metadata']['name']}-{output['name']}"
                client.fget_object(bucket, output["key"], str(path))
                print(f"    {output['sizeBytes']:>7} bytes  {output['key']}")
        table = self.results / "weather-2015-by-month.csv"
        print(f"\n  the first lines of one, now in {table}:")
        print(_indent("\n".join(table.read_text().splitlines()[:4])))
        self._link("weather-2015", "by-month.png")

    def _link(self, task: str, output: str) -> None:
        path = f"/v1/namespaces/default/tasks/{task}/artifacts/{output}"
        request = urllib.request.Request(  # noqa: S310 - our own http address
            self.environ["TASKFLOW_API_URL"] + path,
            headers={"Authorization": f"Bearer {self.environ['TASKFLOW_API_TOKEN']}"},
        )
        with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310
            link = json.load(response)
        print(f"\n  a link that anyone may open until {link['expiresAt']} (while the stack runs):")
        print(f"    {link['url']}")

    def _s3(self) -> Minio:
        return Minio(
            self.environ["TASKFLOW_S3_ENDPOINT"].removeprefix("http://"),
            access_key=self.environ["TASKFLOW_S3_ACCESS_KEY"],
            secret_key=self.environ["TASKFLOW_S3_SECRET_KEY"],
            region=self.environ["TASKFLOW_S3_REGION"],
            secure=False,
        )

    def _kubectl(self, *arguments: str) -> str:
        done = subprocess.run(["kubectl", *arguments], env=self.environ, capture_output=True, text=True, check=False)
        if done.returncode:
            raise LocalError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def _show(self, *command: str, fails: bool = False) -> None:
        """Run a command as a user would, and print the command and its output."""
        print(f"  $ {shlex.join(_short(part) for part in command)}", flush=True)
        done = subprocess.run(
            command, env=self.environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        print(_indent(done.stdout.rstrip()), flush=True)
        if (done.returncode != 0) is not fails:
            raise LocalError(f"{command[0]} ended with {done.returncode}, which was not expected")


def run_demo(state: Path, *, keep: bool) -> None:
    """Start a stack, run the demo, then remove the stack unless `keep` is set.

    Raises:
        LocalError: a component did not start or a step failed. The stack is left as it is.
    """
    examples = resources.path("examples")
    stack = Stack(state)
    started = time.monotonic()
    _title("Starting", "etcd, kube-apiserver, kube-controller-manager, Redis, PostgreSQL, MinIO, operator, API, a node")
    print("  the first time ever, missing programs are downloaded or built, which takes up to 15 minutes; then 20 s")
    stack.up(lambda line: print(f"  {line}", flush=True))
    print(f"  all up after {time.monotonic() - started:.0f} s; state in {stack.folder.root}")
    Demo(stack, examples, Path("taskflow-demo")).run()
    _title("Done", f"in {time.monotonic() - started:.0f} s; the tables and plots are in taskflow-demo/")
    if keep:
        print("  The stack runs on. Try:")
        for line in to_try(stack.folder.root, examples):
            print(f"    {line}")
        print(f"  Stop it:  {command('down', '--delete', state=stack.folder.root)}")
        return
    stack.delete()
    print("  The stack is stopped and removed. To look around in it:  " + command("demo", "--keep"))


def to_try(state: Path, examples: Path) -> list[str]:
    """Commands for the shell of somebody who keeps the stack, in this order."""
    return [
        environment(state),
        "kubectl get tft -o wide",
        "kubectl describe tft second-try",
        "kubectl explain tft.spec",
        "kubectl scale tfp/main --replicas=1",
        f"kubectl apply -f {shlex.quote(str(examples / 'hello.yaml'))}",
    ]


def _detail(status: Mapping[str, Any]) -> str:
    if status.get("phase") == "Succeeded":
        return f"took {status.get('duration')}, result {json.dumps(status.get('result'))}"
    return str(status.get("message") or status.get("reason") or "")


def _title(name: str, about: str) -> None:
    print(f"\n{name}: {about}", flush=True)


def _indent(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())


def _short(part: str) -> str:
    path = Path(part)
    return f"examples/{path.name}" if path.suffix == ".yaml" else part
