"""The Secret `taskflow-worker`: the environment of a namespace's workers, and the record of their login. Pure.

The Secret is the only place that keeps a password. Its annotations say what the logins are, and keep what is needed
of the former login.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from taskflow_core.broker import acl
from taskflow_core.domain import naming
from taskflow_core.settings import StorageSettings
from taskflow_provisioner.logins import Former, Login, S3Key

MANAGER = "taskflow-provision"
"""Field manager and label. It is that of the Secrets which the chart made itself in former versions, so these are taken
over.
"""
INSTALLATION = "taskflow"
"""Name of an installation that has no other."""
REQUEST = f"{naming.GROUP}/rotate"
"""Annotation by which a user asks for another login: any value that it did not have before."""
_KEEPER = f"{naming.GROUP}/provisioner"
_REDIS_LOGIN = f"{naming.GROUP}/redis-login"
_S3_LOGIN = f"{naming.GROUP}/s3-login"
_SINCE = f"{naming.GROUP}/login-since"
_REPLACES = f"{naming.GROUP}/login-replaces"
_SERVED = f"{naming.GROUP}/rotated-for"
_EXPIRES = f"{naming.GROUP}/s3-login-expires"
_FORMER = f"{naming.GROUP}/former-login"
_FORMER_UNTIL = f"{naming.GROUP}/former-login-until"
_SHA256 = re.compile("[0-9a-f]{64}")
_ACCESS_KEY = re.compile("[!-~]{1,256}")


def worker_values(namespace: str, redis_url: str, storage: StorageSettings, login: Login) -> dict[str, str]:
    """The environment of the workers of a namespace: Redis and S3, no database. See `redis_values` and `s3_values`."""
    return redis_values(namespace, redis_url, login.redis_password) | s3_values(storage, login.s3)


def redis_values(namespace: str, url: str, password: str) -> dict[str, str]:
    """How the workers of a namespace reach Redis.

    Args:
        namespace: theirs.
        url: of Redis; whose user and password it has does not matter.
        password: theirs.
    """
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    login = f"{acl.worker_user(namespace)}:{quote(password, safe='')}"
    return {"TASKFLOW_REDIS_URL": parts._replace(netloc=f"{login}@{host}").geturl()}


def s3_values(storage: StorageSettings, key: S3Key) -> dict[str, str]:
    """How workers reach the object store.

    Args:
        storage: the object store; whose key it has does not matter.
        key: theirs.
    """
    values = {
        "TASKFLOW_S3_ENDPOINT": storage.endpoint,
        "TASKFLOW_S3_BUCKET": storage.bucket,
        "TASKFLOW_S3_REGION": storage.region,
        "TASKFLOW_S3_ACCESS_KEY": key.access_key,
        "TASKFLOW_S3_SECRET_KEY": key.secret_key,
    }
    optional = {"TASKFLOW_S3_SESSION_TOKEN": key.session_token, "TASKFLOW_S3_CA": storage.ca}
    return values | {name: value for name, value in optional.items() if value}


def manifest(
    namespace: str, values: Mapping[str, str], login: Login, installation: str = INSTALLATION
) -> dict[str, Any]:
    """The Secret, for server-side apply.

    Args:
        namespace: of the workers.
        values: their environment.
        login: theirs.
        installation: whose provisioner keeps it.
    """
    annotations = {
        _KEEPER: installation,
        _REDIS_LOGIN: "own",
        _S3_LOGIN: login.s3.kind,
        _SINCE: _written(login.since),
        _REPLACES: str(login.replaces).lower(),
    }
    if login.served_request:
        annotations[_SERVED] = login.served_request
    if login.s3.expires is not None:
        annotations[_EXPIRES] = _written(login.s3.expires)
    if (former := login.former) is not None:
        kept = {"redisSha256": former.redis_digest, "s3AccessKey": former.s3_access_key}
        annotations |= {_FORMER: json.dumps(kept), _FORMER_UNTIL: _written(former.until)}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": naming.WORKER_SECRET,
            "namespace": namespace,
            "labels": {"app.kubernetes.io/part-of": "taskflow", naming.LABEL_MANAGED_BY: MANAGER},
            "annotations": annotations,
        },
        "type": "Opaque",
        # Not `stringData`: of that, server-side apply would not know what it owns.
        "data": _encoded(values),
    }


def has_values(secret: Mapping[str, Any], values: Mapping[str, str]) -> bool:
    """Whether the Secret has these values."""
    data: Mapping[str, str] = secret.get("data") or {}
    return _encoded(values).items() <= data.items()


def _encoded(values: Mapping[str, str]) -> dict[str, str]:
    return {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}


def is_ours(secret: Mapping[str, Any], installation: str) -> bool:
    """Whether the provisioner of this installation may change the Secret. It made it, or a former version of the chart
    did; that of somebody else, or of another installation, is never changed.
    """
    managed_by = (secret["metadata"].get("labels") or {}).get(naming.LABEL_MANAGED_BY)
    return bool(managed_by == MANAGER and keeper(secret) in (None, installation))


def keeper(secret: Mapping[str, Any]) -> str | None:
    """The installation whose provisioner keeps the Secret; None if it was none."""
    found = (secret["metadata"].get("annotations") or {}).get(_KEEPER)
    return None if found is None else str(found)


def request_of(secret: Mapping[str, Any]) -> str:
    """The request for another login; empty if there is none."""
    return str((secret["metadata"].get("annotations") or {}).get(REQUEST, ""))


def kept_login(namespace: str, secret: Mapping[str, Any]) -> Login | None:
    """The login that the Secret keeps; None if what it has is no login of this namespace, and has to be replaced."""
    notes = secret["metadata"].get("annotations") or {}
    try:
        values = {key: base64.b64decode(value).decode() for key, value in (secret.get("data") or {}).items()}
        url = urlsplit(values["TASKFLOW_REDIS_URL"])
        if url.username != acl.worker_user(namespace) or not url.password:
            return None
        former = None
        if _FORMER in notes:
            former = _former(json.loads(notes[_FORMER]), notes[_FORMER_UNTIL])
        return Login(
            unquote(url.password),
            S3Key(
                values["TASKFLOW_S3_ACCESS_KEY"],
                values["TASKFLOW_S3_SECRET_KEY"],
                notes[_S3_LOGIN],
                values.get("TASKFLOW_S3_SESSION_TOKEN", ""),
                _read(notes[_EXPIRES]) if _EXPIRES in notes else None,
            ),
            _read(notes[_SINCE]),
            replaces=notes.get(_REPLACES) == "true",
            served_request=notes.get(_SERVED, ""),
            former=former,
        )
    except (KeyError, ValueError, TypeError):
        # Somebody with the right to write Secrets changed it.
        return None


def _former(kept: Mapping[str, str], until: str) -> Former:
    digest, key = kept["redisSha256"], kept["s3AccessKey"]
    if not _SHA256.fullmatch(digest) or not _ACCESS_KEY.fullmatch(key):
        raise ValueError("expected the digest of a password and an access key")
    return Former(digest, key, _read(until))


def since_text(login: Login) -> str:
    """Since when the login is in use, as pools are annotated with it."""
    return _written(login.since)


def _written(value: datetime) -> str:
    return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _read(text: str) -> datetime:
    found = datetime.fromisoformat(text)
    if found.tzinfo is None:
        raise ValueError(f"expected a time with a zone, found {text!r}")
    return found
