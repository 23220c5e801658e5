"""Reads kubeconfig files as kubectl does: several files merged, contexts, certificates, tokens, exec plug-ins."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from taskflow_cli.errors import CliError, Exit

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_DEFAULT_NAMESPACE = "default"
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_NO_CONFIG = "set KUBECONFIG, or pass --kubeconfig FILE; `kubectl config view` shows what kubectl uses"


@dataclass(frozen=True)
class ExecPlugin:
    """A program that prints credentials (client.authentication.k8s.io)."""

    command: str
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    api_version: str = "client.authentication.k8s.io/v1"
    install_hint: str = ""
    provide_cluster: bool = False


@dataclass(frozen=True)
class Impersonation:
    """Whom to act as (`--as`, `--as-group`)."""

    user: str = ""
    groups: tuple[str, ...] = ()


@dataclass(frozen=True)
class Access:
    """The URL of an API server and the identity to use there. Certificates and keys are PEM."""

    server: str
    namespace: str = _DEFAULT_NAMESPACE
    context: str = ""
    ca: str = ""
    insecure: bool = False
    tls_server_name: str = ""
    proxy_url: str = ""
    certificate: str = ""
    key: str = ""
    token: str = field(default="", repr=False)
    token_file: Path | None = None
    plugin: ExecPlugin | None = None
    impersonation: Impersonation = Impersonation()


def paths_of(environ: Mapping[str, str], explicit: Path | None) -> list[Path]:
    """The files to read: `--kubeconfig`, else those of KUBECONFIG, else ~/.kube/config."""
    if explicit is not None:
        return [explicit]
    if named := [Path(each) for each in environ.get("KUBECONFIG", "").split(":") if each]:
        return named
    return [Path(environ.get("HOME") or Path.home()) / ".kube" / "config"]


@dataclass(frozen=True)
class Kubeconfig:
    """The merged content of kubeconfig files; of two entries of one name the first counts."""

    clusters: Mapping[str, Mapping[str, Any]]
    users: Mapping[str, Mapping[str, Any]]
    contexts: Mapping[str, Mapping[str, Any]]
    current: str


def read(paths: Sequence[Path], *, required: bool = False) -> Kubeconfig:
    """Read and merge the files. Files that do not exist are left out unless they are `required`.

    Raises:
        CliError: a file cannot be read, or is no kubeconfig.
    """
    sections: dict[str, dict[str, dict[str, Any]]] = {"cluster": {}, "user": {}, "context": {}}
    current = ""
    for path in paths:
        content = _load(path, required=required)
        current = current or str(content.get("current-context") or "")
        for kind, known in sections.items():
            for entry in content.get(f"{kind}s") or ():
                if not isinstance(entry, Mapping) or not isinstance(entry.get("name"), str):
                    raise CliError(f"{path} is no kubeconfig", f"an entry of {kind}s has no name", code=Exit.INVALID)
                known.setdefault(entry["name"], {**(entry.get(kind) or {}), "": path.parent})
    return Kubeconfig(sections["cluster"], sections["user"], sections["context"], current)


def _load(path: Path, *, required: bool) -> Mapping[str, Any]:
    try:
        content = yaml.load(path.read_bytes(), _LOADER)  # noqa: S506 - a safe loader, in C where there is one
    except FileNotFoundError:
        if required:
            raise CliError(f"{path} does not exist", hint=_NO_CONFIG, code=Exit.NOT_FOUND) from None
        return {}
    except OSError as error:
        raise CliError(f"cannot read {path}", error.strerror or str(error)) from None
    except yaml.YAMLError as error:
        raise CliError(f"{path} is no kubeconfig", " ".join(str(error).split()), code=Exit.INVALID) from None
    if content is None:
        return {}
    if not isinstance(content, Mapping):
        raise CliError(
            f"{path} is no kubeconfig", f"expected a mapping, found {type(content).__name__}", code=Exit.INVALID
        )
    return content


def access_of(config: Kubeconfig, name: str = "") -> Access:
    """What a context says; without a name, the current one.

    Raises:
        CliError: there is no such context, or it is incomplete or needs what is not supported.
    """
    name = name or config.current
    if not name:
        raise CliError("no cluster is chosen", "the kubeconfig has no current context", hint=_NO_CONFIG)
    context = config.contexts.get(name)
    if context is None:
        known = ", ".join(sorted(config.contexts)) or "none"
        raise CliError(f"context {name!r} does not exist", f"known: {known}", code=Exit.NOT_FOUND)
    cluster = _named(config.clusters, "cluster", context, name)
    user = _named(config.users, "user", context, name) if context.get("user") else {}
    server = str(cluster.get("server") or "")
    if urlsplit(server).scheme not in {"http", "https"}:
        raise CliError(
            f"context {name!r} has no server", f"expected an https:// URL, found {server!r}", code=Exit.INVALID
        )
    if user.get("auth-provider"):
        hint = "Kubernetes removed auth-provider in 1.26; log in again with the exec plug-in of your provider"
        raise CliError(f"context {name!r} uses auth-provider, which is not supported", hint=hint)
    return Access(
        server=server.rstrip("/"),
        namespace=str(context.get("namespace") or _DEFAULT_NAMESPACE),
        context=name,
        ca=_pem(cluster, "certificate-authority"),
        insecure=bool(cluster.get("insecure-skip-tls-verify")),
        tls_server_name=str(cluster.get("tls-server-name") or ""),
        proxy_url=str(cluster.get("proxy-url") or ""),
        certificate=_pem(user, "client-certificate"),
        key=_pem(user, "client-key"),
        token=str(user.get("token") or ""),
        token_file=user[""] / str(user["tokenFile"]) if user.get("tokenFile") and not user.get("token") else None,
        plugin=_plugin(user),
        impersonation=Impersonation(str(user.get("as") or ""), tuple(user.get("as-groups") or ())),
    )


def _named(
    known: Mapping[str, Mapping[str, Any]], kind: str, context: Mapping[str, Any], name: str
) -> Mapping[str, Any]:
    wanted = str(context.get(kind))
    if wanted not in known:
        raise CliError(
            f"context {name!r} is incomplete", f"its {kind} {wanted!r} is not in the kubeconfig", code=Exit.INVALID
        )
    return known[wanted]


def _pem(entry: Mapping[str, Any], field_name: str) -> str:
    """What `FIELD-data` has in base64, or the file that FIELD names, relative to the kubeconfig that names it."""
    try:
        if data := entry.get(f"{field_name}-data"):
            return base64.b64decode(data, validate=True).decode("ascii")
        if path := entry.get(field_name):
            return Path(entry[""] / str(path)).read_text("ascii")
    except OSError as error:
        raise CliError(
            f"cannot read the {field_name} of the kubeconfig", f"{error.filename}: {error.strerror}"
        ) from None
    except (binascii.Error, ValueError):
        raise CliError(f"the {field_name} of the kubeconfig is no PEM", code=Exit.INVALID) from None
    return ""


def _plugin(user: Mapping[str, Any]) -> ExecPlugin | None:
    content = user.get("exec")
    if not content:
        return None
    command = str(content.get("command") or "")
    # As kubectl: a path is relative to the file, a bare name is looked up in PATH.
    if "/" in command:
        command = str(user[""] / command)
    return ExecPlugin(
        command=command,
        args=tuple(map(str, content.get("args") or ())),
        env={str(each["name"]): str(each["value"]) for each in content.get("env") or ()},
        api_version=str(content.get("apiVersion") or ExecPlugin.api_version),
        install_hint=str(content.get("installHint") or "").strip(),
        provide_cluster=bool(content.get("provideClusterInfo")),
    )


def in_cluster(environ: Mapping[str, str], folder: Path = SERVICE_ACCOUNT) -> Access | None:
    """The ServiceAccount of the pod that this runs in, or None outside of one."""
    host, port = environ.get("KUBERNETES_SERVICE_HOST"), environ.get("KUBERNETES_SERVICE_PORT")
    token = folder / "token"
    if not host or not port or not token.exists():
        return None
    namespace = folder / "namespace"
    return Access(
        server=f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}",
        namespace=namespace.read_text().strip() if namespace.exists() else _DEFAULT_NAMESPACE,
        context="in-cluster",
        ca=(folder / "ca.crt").read_text(),
        token_file=token,
    )
