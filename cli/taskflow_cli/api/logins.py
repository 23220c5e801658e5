"""Where the REST API is, and the token for it: options, environment, and the logins that `taskflow login` keeps.

A token goes only to the server that it was given for. The credentials of a kubeconfig are never sent to a REST API.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from taskflow_cli.errors import CliError, Exit

_HEAD = "# Logins of taskflow to REST APIs, by context of the kubeconfig. Written by `taskflow login`.\n"
_LOGIN = "log in with: taskflow login --server URL\nor set TASKFLOW_API_URL and TASKFLOW_API_TOKEN"


@dataclass(frozen=True)
class Login:
    """A server and the token for it; `ca` is the path of a file with its authority, or empty."""

    server: str
    token: str = field(repr=False)
    ca: str = ""


def path_of(environ: Mapping[str, str]) -> Path:
    """The file that keeps logins (XDG base directories)."""
    base = environ.get("XDG_CONFIG_HOME") or str(Path(environ.get("HOME") or Path.home()) / ".config")
    return Path(base) / "taskflow" / "config.yaml"


def server_of(text: str) -> str:
    """A URL as it is kept and compared: without a slash at its end.

    Raises:
        CliError: it is no URL of HTTP.
    """
    try:
        url = urlsplit(text)
        valid = url.scheme in {"http", "https"} and bool(url.hostname) and not url.query and url.username is None
    except ValueError:
        valid = False
    if not valid:
        raise CliError(f"expected a URL such as https://taskflow.example.com, found {text!r}", code=Exit.USAGE)
    return text.rstrip("/")


def read(path: Path) -> dict[str, Login]:
    """All logins, by context.

    Raises:
        CliError: the file cannot be read, is not understood, or others may read it.
    """
    try:
        mode = path.stat().st_mode
        text = path.read_text("utf-8")
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise CliError(f"cannot read {path}", error.strerror or str(error)) from None
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise CliError(f"others may read {path}, which has tokens", hint=f"chmod 600 {path}")
    try:
        content: Any = yaml.safe_load(text) or {}
        return {
            name: Login(str(entry["server"]), str(entry["token"]), str(entry.get("ca") or ""))
            for name, entry in content.get("logins", {}).items()
        }
    except (yaml.YAMLError, KeyError, TypeError, AttributeError):
        hint = f"remove it, and log in again: rm {path}"
        raise CliError(f"{path} is no file of logins", hint=hint, code=Exit.INVALID) from None


def write(path: Path, logins: Mapping[str, Login]) -> None:
    """Replace the file; only its owner may read it."""
    content = {
        name: {"server": login.server, "token": login.token, **({"ca": login.ca} if login.ca else {})}
        for name, login in logins.items()
    }
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # mkstemp makes it for its owner alone.
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".config-")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(_HEAD + yaml.safe_dump({"logins": content}, sort_keys=False))
    Path(name).replace(path)


def find(environ: Mapping[str, str], server: str, context: str) -> Login:
    """The login to use: for `server` if it is given, else for TASKFLOW_API_URL, else that of the context.

    Raises:
        CliError: there is none.
    """
    given = environ.get("TASKFLOW_API_URL", "")
    url = server_of(server or given) if server or given else ""
    token = environ.get("TASKFLOW_API_TOKEN", "")
    # With --server alone, the token of the environment is for the server of the environment.
    if url and token and (not given or server_of(given) == url):
        return Login(url, token, environ.get("TASKFLOW_API_CA", ""))
    kept = read(path_of(environ))
    if not url and context in kept:
        return kept[context]
    for login in kept.values():
        if url and login.server == url:
            return login
    if url:
        raise CliError(
            f"there is no token for {url}", hint=f"log in with: taskflow login --server {url}", code=Exit.NOT_ALLOWED
        )
    where = f" of context {context!r}" if context else ""
    raise CliError(f"the REST API{where} is not known", hint=_LOGIN, code=Exit.UNREACHABLE)
