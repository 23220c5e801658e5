"""A stack of components on this machine. The library behind the command line, the tests and the demo."""

import asyncio
import datetime as dt
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from taskflow_core.domain import naming
from taskflow_core.errors import Invalid
from taskflow_local import cluster, pki, postgres, processes, services
from taskflow_local.commands import CommandContext
from taskflow_local.components import ALL, COMPONENTS, Component, in_order
from taskflow_local.environments import client_environment, environment, worker_environment, worker_manifest
from taskflow_local.errors import ComponentFailedError, LocalError
from taskflow_local.handlers import choose
from taskflow_local.invocation import command
from taskflow_local.kube import Access, Kube
from taskflow_local.node.agent import kill_leftovers
from taskflow_local.programs import Resolver
from taskflow_local.readiness import is_ready
from taskflow_local.startup import Step, run_all
from taskflow_local.state import Folder, Ports, StackState

_POLL_SECONDS = 0.05
_TAIL_LINES = 15
_CLUSTER, _MIGRATION = "cluster", "migration"
Log = Callable[[str], None]
Result = TypeVar("Result")


@dataclass(frozen=True)
class ComponentStatus:
    """One line of `taskflow-local status`."""

    name: str
    running: bool
    ready: bool
    pid: int | None
    address: str


class Stack:
    """All components below one state folder. Their processes outlive this object and this process.

    All methods block. None needs an event loop, and they may be called while one runs. They raise LocalError, whose
    message says what to do.

    Args:
        state: the state folder.
        components: some of `ALL`, including everything that they need.
        environ: the environment to pass settings from; by default this process's.
        through: loopback ports of proxies. Operator, API and workers reach a server through its proxy, if it has one.
    """

    def __init__(
        self,
        state: Path,
        components: Sequence[str] = ALL,
        environ: Mapping[str, str] | None = None,
        through: Mapping[str, int] | None = None,
    ) -> None:
        self._through = dict(through or {})
        self.folder = Folder(state)
        self._components = in_order(components)
        self._environ = dict(os.environ if environ is None else environ)
        self._state = self.folder.load() if self.folder.root.exists() else StackState()
        self._programs: dict[str, Path] = {}
        self._given_up = threading.Event()

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.folder.kubeconfig

    @property
    def components(self) -> tuple[str, ...]:
        """The components that were brought up in this folder, or else those of this object."""
        return tuple(self._state.components or [each.name for each in self._components])

    def exists(self) -> bool:
        """Tell whether a stack was ever brought up in this folder."""
        return (self.folder.root / "lock").exists()

    def log(self, name: str) -> Path:
        """Where a component writes its output."""
        return self.folder.log(name)

    def port(self, name: str) -> int:
        """The loopback port of a component (operator: health). Raises LocalError before its first start."""
        try:
            return self._state.ports[name]
        except KeyError:
            raise LocalError(f"{name} has no port: bring it up first") from None

    def pid(self, name: str) -> int | None:
        """The process id of a running component, else None."""
        identity = processes.read_record(self.folder.record(name))
        return identity.pid if identity is not None and processes.is_alive(identity) else None

    def env(self) -> dict[str, str]:
        """The environment for a client of this stack, such as kubectl or a test."""
        return client_environment(self._state, self.folder, self._environ)

    def component_env(self, name: str) -> dict[str, str]:
        """The whole environment of a component, secrets included."""
        return environment(name, self._reached(), self.folder, self._environ)

    def _reached(self) -> StackState:
        return self._state.model_copy(update={"ports": self._state.ports | self._through})

    def status(self) -> list[ComponentStatus]:
        """Ask every component once."""
        with ThreadPoolExecutor(len(COMPONENTS)) as pool:
            return list(pool.map(self._status_of, self.components))

    def _status_of(self, name: str) -> ComponentStatus:
        pid = self.pid(name)
        ready = pid is not None and is_ready(name, pid, self._state, self.folder)
        port = self._state.ports.get(name)
        return ComponentStatus(
            name, pid is not None, ready, pid, "-" if port is None else COMPONENTS[name].address(port)
        )

    def up(self, log: Log = print, handlers: Sequence[Path] | None = None) -> None:
        """Start the components that do not run and wait until all are ready. Running components are left alone.

        After a crash or a reboot, data, secrets and free ports stay the same. `handlers` None keeps those of before.
        """
        self.folder.create()
        with self.folder.locked(log), Ports() as ports:
            self._state = self.folder.load()
            if handlers is not None:
                self._use_handlers([each.absolute() for each in handlers], log)
            waiting = [each for each in self._components if self.pid(each.name) is None]
            if not waiting and all(self._status_of(each.name).ready for each in self._components):
                log("already up: every component runs and is ready")
                return
            self._given_up.clear()
            self._resolve(log)
            moved = self._choose_ports(ports, waiting)
            waiting += self._stop_dependants(moved, log)
            self._save_state()
            pki.create(self.folder.pki, dt.datetime.now(dt.UTC))
            self._write_kubeconfigs()
            run_all(self._steps(waiting), log, self._given_up.set)

    def _use_handlers(self, paths: Sequence[Path], log: Log) -> None:
        choose(paths, self.folder.handlers, self._environ, log)
        if (wanted := [str(each) for each in paths]) != self._state.handlers:
            self._state.handlers = wanted
            self.folder.save(self._state)
            # It gives its Pods the import path when they start.
            self._stop(COMPONENTS["node"])

    def _steps(self, waiting: Sequence[Component]) -> list[Step]:
        """Order the start: services, then the cluster's objects and the database schema, then TaskFlow's components."""
        names = {each.name for each in self._components}
        ours = names & {"node", "operator", "api", "notifier", "provisioner"}
        steps = [self._step(each, waiting, each.comes_after()) for each in self._components if each.name not in ours]
        if "kube-apiserver" in names:
            steps.append(Step(_CLUSTER, ("kube-apiserver",), self.prepare_cluster))
        if "postgres" in names and ours - {"node", "provisioner"}:
            steps.append(Step(_MIGRATION, ("postgres",), self.migrate))
        before = (*(step.name for step in steps),)
        return [*steps, *(self._step(each, waiting, before) for each in self._components if each.name in ours)]

    def _step(self, component: Component, waiting: Sequence[Component], after: tuple[str, ...]) -> Step:
        def run() -> bool:
            if component in waiting:
                self._launch(component)
            self._wait_ready(component)
            return component in waiting

        return Step(component.name, after, run)

    def _write_kubeconfigs(self) -> None:
        admin = self._access()
        admin.write(self.kubeconfig, "admin")
        manager = replace(admin, token=self._state.controller_manager_token)
        manager.write(self.folder.conf / "kube-controller-manager.kubeconfig", "kube-controller-manager")

    def _resolve(self, log: Log) -> None:
        """Find all programs before anything starts: a build may take minutes, and a missing program fails at once."""
        resolver = Resolver(environ=self._environ, log=log)
        for name in dict.fromkeys(name for each in self._components for name in each.programs):
            self._programs[name] = resolver.resolve(name)
        if any(each.name == "kube-apiserver" for each in self._components):
            self._programs["kubectl"] = resolver.resolve("kubectl").resolve()  # PATH may lead to our own link

    def _choose_ports(self, ports: Ports, waiting: Sequence[Component]) -> set[str]:
        remembered = dict(self._state.ports)
        chosen = ports.choose(remembered, [name for each in waiting for name in each.ports])
        self._state.ports.update(chosen)
        return {name for name, port in chosen.items() if remembered.get(name, port) != port}

    def _stop_dependants(self, moved: set[str], log: Log) -> list[Component]:
        """Stop running components that use a component whose port has changed. They are started again."""
        stopped = []
        for each in self._components:
            if moved.intersection(each.comes_after()) and self.pid(each.name) is not None:
                log(f"{each.name}: restarting, because the port of a component it uses has changed")
                self._stop(each)
                stopped.append(each)
        return stopped

    def _save_state(self) -> None:
        names = {each.name for each in self._components} | set(self._state.components)
        self._state.components = [name for name in COMPONENTS if name in names]
        for namespace in self._state.namespaces:
            self._state.worker(namespace)
        self.folder.save(self._state)
        if kubectl := self._programs.get("kubectl"):
            link = self.folder.bin / "kubectl"
            link.unlink(missing_ok=True)
            if kubectl.name != "kubectl":
                link.symlink_to(kubectl)

    def _access(self) -> Access:
        return Access(self._state.api_server, (self.folder.pki / "ca.crt").read_text(), self._state.admin_token)

    def start(self, name: str) -> None:
        """Start one component of this stack and wait until it is ready. Does nothing if it already runs."""
        component = self._component(name)
        if self.pid(name) is not None:
            return
        self._state = self.folder.load()
        if name not in self._state.components:
            raise LocalError(f"{name} is not part of the stack in {self.folder.root}: bring it up first")
        if any(program not in self._programs for program in component.programs):
            resolver = Resolver(environ=self._environ)
            self._programs |= {program: resolver.resolve(program) for program in component.programs}
        self._launch(component)
        self._wait_ready(component)

    def _component(self, name: str) -> Component:
        if name not in COMPONENTS:
            raise LocalError(f"unknown component {name!r}: expected one of {', '.join(COMPONENTS)}")
        return COMPONENTS[name]

    def _launch(self, component: Component) -> None:
        user = postgres.unprivileged_user() if component.unprivileged else None
        context = CommandContext(self.folder, self._state, self._programs, user)
        if component.name == "postgres":
            data = self.folder.data / "postgres"
            postgres.initialise(data, self._programs, self._state, user, self.log("postgres"))
            postgres.check_passable(data.parent, user)
        processes.start(
            component.argv(context),
            env=self.component_env(component.name),
            cwd=self.folder.data,
            log=self.log(component.name),
            record=self.folder.record(component.name),
            user=user,
        )

    def _wait_ready(self, component: Component) -> None:
        deadline = time.monotonic() + component.start_seconds
        while True:
            pid = self.pid(component.name)
            if pid is None:
                raise ComponentFailedError(self._failure(component, "ended"))
            if is_ready(component.name, pid, self._state, self.folder):
                break
            if self._given_up.wait(_POLL_SECONDS):
                raise ComponentFailedError(f"{component.name}: interrupted before it was ready")
            if time.monotonic() > deadline:
                raise ComponentFailedError(
                    self._failure(component, f"was not ready after {component.start_seconds:.0f} s")
                )
        services.prepare(component.name, self._state, self._state.namespaces)

    def _failure(self, component: Component, what: str) -> str:
        path = self.log(component.name)
        tail = "\n".join(path.read_text(errors="replace").splitlines()[-_TAIL_LINES:]) if path.exists() else ""
        return f"{component.name} {what}; its log {path} ends with:\n{tail}"

    def stop(self, name: str, signum: signal.Signals | None = None) -> None:
        """Stop one component and wait until it is gone. `signum` replaces its stop signal: SIGKILL for a crash."""
        self._stop(self._component(name), signum)

    def _stop(self, component: Component, signum: signal.Signals | None = None) -> None:
        record = self.folder.record(component.name)
        identity = processes.read_record(record)
        if identity is not None:
            processes.stop(identity, signum or component.stop_signal, component.stop_seconds)
            record.unlink(missing_ok=True)

    def down(self, log: Log = print) -> None:
        """Stop every process of this folder, including Pods, in reverse order of the start. Data stays."""
        if not self.exists():
            return
        with self.folder.locked(log):
            for names in (
                ("api", "operator", "provisioner"),
                ("node",),
                ("kube-controller-manager",),
                ("kube-apiserver",),
            ):
                self._stop_in_parallel(names)
            # Of Pods that a killed node left behind. After a normal stop there are none.
            kill_leftovers(self.folder.pods)
            self._stop_in_parallel(COMPONENTS)

    def _stop_in_parallel(self, names: Iterable[str]) -> None:
        names = list(names)
        with ThreadPoolExecutor(len(names)) as pool:
            list(pool.map(lambda name: self._stop(COMPONENTS[name]), names))

    def delete(self, log: Log = print) -> None:
        """Stop the stack and remove its folder, including the data."""
        self.down(log)
        if self.exists():
            shutil.rmtree(self.folder.root)

    def apply_crds(self) -> list[str]:
        """Apply TaskFlow's CRDs with their admission policies, and wait until they are served; returns their names."""
        return self._with_kube(cluster.define_kinds)

    def add_namespace(self, name: str) -> None:
        """Create a namespace for Tasks, whose workers get their own logins in the Secret `taskflow-worker`."""
        if self.pid("kube-apiserver") is None:
            raise LocalError(
                f"the stack in {self.folder.root} does not run; run: {command('up', state=self.folder.root)}"
            )
        self.admit(name)

        async def add(kube: Kube) -> None:
            await cluster.add_namespace(kube, name, worker_manifest(self._reached(), name))
            if self._state.has_provisioner and self.pid("provisioner") is not None:
                await cluster.wait_for_login(kube, name)

        self._with_kube(add)

    def admit(self, namespace: str) -> None:
        """Create the users of a namespace's workers in Redis and S3."""
        try:
            naming.check_namespace(namespace)
        except Invalid as error:
            raise LocalError(str(error)) from error
        if namespace not in self._state.namespaces:
            self._state.namespaces.append(namespace)
        self._state.worker(namespace)
        self.folder.save(self._state)
        for service in self._state.components:
            if self.pid(service) is not None:
                services.prepare(service, self._state, [namespace])

    def worker_env(self, namespace: str) -> dict[str, str]:
        """The content of the Secret `taskflow-worker` of a namespace, if no provisioner keeps it."""
        return worker_environment(self._reached(), namespace)

    def _with_kube(self, action: Callable[[Kube], Coroutine[Any, Any, Result]]) -> Result:
        async def connected() -> Result:
            async with Kube(self._access()) as kube:
                return await action(kube)

        # In its own thread: the caller may have a running event loop.
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(lambda: asyncio.run(connected())).result()

    def prepare_cluster(self) -> bool:
        """Apply namespaces, RBAC, identities, Secrets and (with an operator) CRDs. It may be repeated."""
        names = {each.name for each in self._components}
        accounts = {who: account for who, account in cluster.ACCOUNTS.items() if who in names or who == "client"}

        async def prepare(kube: Kube) -> dict[str, str]:
            tokens = await cluster.prepare(kube, accounts.values())
            state = self._state
            state.namespaces = await cluster.existing_namespaces(kube, state.namespaces)
            secrets = {name: worker_manifest(self._reached(), name) for name in state.namespaces}
            await asyncio.gather(*(cluster.add_namespace(kube, *each) for each in secrets.items()))
            return tokens

        tokens = self._with_kube(prepare)
        admin = self._access()
        for who, (_, account) in accounts.items():
            if who != "client":
                server = admin.server if who == "node" else self._reached().api_server
                identity = replace(admin, server=server, token=tokens[account])
                identity.write(self.folder.conf / f"{who}.kubeconfig", account)
        self._state.client_token = tokens[cluster.ACCOUNTS["client"][1]]
        self.folder.save(self._state)
        if "operator" in names:
            self.apply_crds()
        return True

    def migrate(self) -> bool:
        """Migrate the history database to the newest schema. Raises ComponentFailedError with the output."""
        postgres.migrate(self.component_env("migrate"), self.folder.data, self.log("migrate"))
        return True
