"""The credentials of a context: a token, a certificate, or what an exec plug-in prints."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field

from taskflow_cli.cluster.kubeconfig import Access, ExecPlugin
from taskflow_cli.errors import CliError, Exit

_SECONDS = 120
"""A plug-in may open a browser and wait for a person."""


@dataclass(frozen=True)
class Credentials:
    """What a request is sent with. Certificate and key are PEM."""

    token: str = field(default="", repr=False)
    certificate: str = ""
    key: str = field(default="", repr=False)


def credentials_of(access: Access, environ: Mapping[str, str]) -> Credentials:
    """The credentials for a server; runs the plug-in if there is one.

    Raises:
        CliError: they cannot be had.
    """
    if access.plugin is not None and not access.token:
        return _from_plugin(access, access.plugin, environ)
    token = access.token
    if access.token_file is not None:
        try:
            token = access.token_file.read_text().strip()
        except OSError as error:
            raise CliError(f"cannot read the token file {access.token_file}", error.strerror or "") from None
    return Credentials(token, access.certificate, access.key)


def _from_plugin(access: Access, plugin: ExecPlugin, environ: Mapping[str, str]) -> Credentials:
    request = {
        "apiVersion": plugin.api_version,
        "kind": "ExecCredential",
        "spec": {"interactive": os.isatty(0), **({"cluster": _cluster(access)} if plugin.provide_cluster else {})},
    }
    whole = {**environ, **plugin.env, "KUBERNETES_EXEC_INFO": json.dumps(request)}
    what = f"the credential plug-in {plugin.command!r} of context {access.context!r}"
    try:
        # Its stderr and stdin are the user's: it may ask or explain.
        done = subprocess.run(  # noqa: S603 - the user's own kubeconfig names it
            [plugin.command, *plugin.args], env=whole, stdout=subprocess.PIPE, timeout=_SECONDS, check=False
        )
    except FileNotFoundError:
        hint = plugin.install_hint or "install it, or put it on PATH"
        raise CliError(f"{what} is not installed", hint=hint, code=Exit.NOT_ALLOWED) from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CliError(f"{what} failed", str(error), code=Exit.NOT_ALLOWED) from None
    if done.returncode:
        raise CliError(f"{what} failed", f"exit code {done.returncode}", code=Exit.NOT_ALLOWED)
    try:
        status = json.loads(done.stdout)["status"]
        found = Credentials(
            str(status.get("token") or ""),
            str(status.get("clientCertificateData") or ""),
            str(status.get("clientKeyData") or ""),
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        raise CliError(f"{what} printed no ExecCredential with a status", code=Exit.NOT_ALLOWED) from None
    if not found.token and not found.certificate:
        raise CliError(f"{what} gave neither a token nor a certificate", code=Exit.NOT_ALLOWED)
    return found


def _cluster(access: Access) -> dict[str, object]:
    import base64  # noqa: PLC0415 - for the few plug-ins that ask for it

    ca = base64.b64encode(access.ca.encode()).decode()
    found = {
        "server": access.server,
        "tls-server-name": access.tls_server_name,
        "insecure-skip-tls-verify": access.insecure,
        "certificate-authority-data": ca,
        "proxy-url": access.proxy_url,
    }
    return {name: value for name, value in found.items() if value}
