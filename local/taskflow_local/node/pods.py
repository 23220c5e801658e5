"""Translates a Pod into processes: command and environment, as the Pod API (core/v1) defines them.

Pure. There are no images, volumes, networks or users: a container is its command on this machine.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from taskflow_local.kube import Object

HOST_ADDRESS = "127.0.0.1"
_REFERENCE = re.compile(r"\$(\$|\(([^()$]+)\))")
_KEYED_FIELD = re.compile(r"metadata\.(labels|annotations)\['([^']+)'\]")


class ConfigError(Exception):
    """A container of this Pod cannot start. Has the kubelet's waiting reason and a message."""

    reason = "CreateContainerConfigError"


@dataclass(frozen=True)
class Reference:
    """A Secret or ConfigMap that a container's environment refers to."""

    kind: str
    name: str


Sources = Mapping[Reference, Mapping[str, str] | None]
"""The content of each reference. None for an object that does not exist."""


@dataclass(frozen=True)
class ProcessSpec:
    """What to execute for one container."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: Path


@dataclass(frozen=True)
class Base:
    """What every container gets from this machine."""

    path: str
    home: Path
    node_name: str
    extra: Mapping[str, str]
    temporary: Path | None = None
    """The folder for temporary files; `home` if there is none. Sockets are made in it, whose paths have at most 107
    characters."""

    def environment(self) -> dict[str, str]:
        """The clean environment that a container starts from."""
        temporary = self.temporary or self.home
        return {"LANG": "C.UTF-8", **self.extra, "PATH": self.path, "HOME": str(self.home), "TMPDIR": str(temporary)}


def containers(pod: Object) -> list[Object]:
    """List the containers of a Pod."""
    found: list[Object] = pod["spec"]["containers"]
    return found


def references(container: Object) -> set[Reference]:
    """All Secrets and ConfigMaps that the container's environment refers to."""
    found = set()
    for source in container.get("envFrom", []):
        for key, kind in (("secretRef", "Secret"), ("configMapRef", "ConfigMap")):
            if key in source:
                found.add(Reference(kind, source[key]["name"]))
    for variable in container.get("env", []):
        for key, kind in (("secretKeyRef", "Secret"), ("configMapKeyRef", "ConfigMap")):
            if key in variable.get("valueFrom", {}):
                found.add(Reference(kind, variable["valueFrom"][key]["name"]))
    return found


def process(pod: Object, container: Object, sources: Sources, base: Base) -> ProcessSpec:
    """Translate a container. Raises ConfigError when it has no command or needs something that does not exist."""
    if pod["spec"].get("initContainers"):
        raise ConfigError("local mode runs no initContainers: do their work in the container's command")
    if not container.get("command"):
        raise ConfigError(
            "local mode has no images, so it needs spec.containers[].command: expected a command, found none"
        )
    env = environment(pod, container, sources, base)
    argv = [expand(word, env) for word in (*container["command"], *container.get("args", []))]
    return ProcessSpec(tuple(argv), env, Path(container.get("workingDir") or base.home))


def environment(pod: Object, container: Object, sources: Sources, base: Base) -> dict[str, str]:
    """Build the environment in the kubelet's order: base, envFrom, then env, where later wins."""
    env = base.environment()
    for source in container.get("envFrom", []):
        for key, kind in (("secretRef", "Secret"), ("configMapRef", "ConfigMap")):
            if key in source:
                content = _content(sources, kind, source[key])
                env |= {source.get("prefix", "") + name: value for name, value in content.items()}
    for variable in container.get("env", []):
        name = variable["name"]
        value = _value_from(pod, variable["valueFrom"], sources, base) if "valueFrom" in variable else None
        if value is not None:
            env[name] = value
        elif "valueFrom" not in variable:
            env[name] = expand(variable.get("value", ""), env)
    return env


def _content(sources: Sources, kind: str, reference: Object) -> Mapping[str, str]:
    content = sources[Reference(kind, reference["name"])]
    if content is None:
        if reference.get("optional"):
            return {}
        raise ConfigError(f'{kind.lower()} "{reference["name"]}" not found')
    return content


def _value_from(pod: Object, source: Object, sources: Sources, base: Base) -> str | None:
    for key, kind in (("secretKeyRef", "Secret"), ("configMapKeyRef", "ConfigMap")):
        if key in source:
            reference = source[key]
            content = _content(sources, kind, reference)
            if reference["key"] not in content and not reference.get("optional"):
                raise ConfigError(f"couldn't find key {reference['key']} in {kind} {reference['name']}")
            return content.get(reference["key"])
    if "fieldRef" in source:
        return _field(pod, source["fieldRef"]["fieldPath"], base)
    raise ConfigError(
        f"local mode knows secretKeyRef, configMapKeyRef and fieldRef in valueFrom, found {sorted(source)}"
    )


def _field(pod: Object, path: str, base: Base) -> str:
    keyed = _KEYED_FIELD.fullmatch(path)
    if keyed:
        return str(pod["metadata"].get(keyed.group(1), {}).get(keyed.group(2), ""))
    values = {
        "metadata.name": pod["metadata"]["name"],
        "metadata.namespace": pod["metadata"]["namespace"],
        "metadata.uid": pod["metadata"]["uid"],
        "spec.nodeName": base.node_name,
        "spec.serviceAccountName": pod["spec"].get("serviceAccountName", ""),
        "status.podIP": HOST_ADDRESS,
        "status.podIPs": HOST_ADDRESS,
        "status.hostIP": HOST_ADDRESS,
    }
    if path not in values:
        raise ConfigError(f"local mode knows the fields {', '.join(values)}, labels and annotations, found {path}")
    return str(values[path])


def expand(text: str, env: Mapping[str, str]) -> str:
    """Expand `$(NAME)`. `$$` is a literal `$`, unknown names stay as they are (API documentation of EnvVar.value)."""

    def replace(match: re.Match[str]) -> str:
        if match.group(1) == "$":
            return "$"
        return env.get(match.group(2), match.group(0))

    return _REFERENCE.sub(replace, text)


def folder_name(pod: Object) -> str:
    """The name of the Pod's folder. A very long name is cut; the uid keeps it unique."""
    metadata = pod["metadata"]
    return f"{log_folder_prefix(metadata['namespace'], metadata['name'])}_{metadata['uid']}"


def log_folder_prefix(namespace: str, name: str) -> str:
    """The start of the folder's name, which finds a Pod's logs without its uid."""
    return f"{namespace}_{name[:140]}"
