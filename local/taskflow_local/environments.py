"""The environment variables of each component and of clients: exactly what each of them must know."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from taskflow_core.broker import acl
from taskflow_core.settings import RedisSettings, StorageSettings
from taskflow_local.cluster import SYSTEM_NAMESPACE
from taskflow_local.handlers import PODS_PATH, import_path
from taskflow_local.state import Folder, StackState
from taskflow_provisioner.fixed_users import FixedUser, redis_users, s3_users_of
from taskflow_provisioner.logins import Login, S3Key
from taskflow_provisioner.s3_logins import s3_users
from taskflow_provisioner.worker_secret import manifest, redis_values, s3_values

BUCKET = "taskflow"
REGION = "us-east-1"
OPERATOR_SETTINGS = (
    "TASKFLOW_LEASE_SECONDS",
    "TASKFLOW_RESYNC_SECONDS",
    "TASKFLOW_STATUS_WRITES_PER_SECOND",
    "TASKFLOW_LEADER_ELECTION",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
)
"""Settings of the operator that are passed on from the environment of `taskflow-local up`, if they are set there."""
API_SETTINGS = (
    "TASKFLOW_API_AUDIENCES",
    "TASKFLOW_API_METRICS_PORT",
    "TASKFLOW_API_STREAMS_PER_CALLER",
    "TASKFLOW_API_STREAMS",
    "TASKFLOW_API_TRUSTED_PROXIES",
    "TASKFLOW_API_CONNECTIONS",
    "TASKFLOW_API_CONNECTIONS_PER_ADDRESS",
    "TASKFLOW_API_HEADER_SECONDS",
    "TASKFLOW_API_BODY_SECONDS",
    "TASKFLOW_OIDC_ISSUER",
    "TASKFLOW_OIDC_AUDIENCE",
    "TASKFLOW_OIDC_USERNAME_CLAIM",
    "TASKFLOW_OIDC_USERNAME_PREFIX",
    "TASKFLOW_OIDC_GROUPS_CLAIM",
    "TASKFLOW_OIDC_GROUPS_PREFIX",
    "TASKFLOW_OIDC_CA_FILE",
    "TASKFLOW_REGISTER_ENABLED",
    "TASKFLOW_REGISTER_SIGNING_KEY",
    "TASKFLOW_REGISTER_SIGNING_KEY_FILE",
    "TASKFLOW_REGISTER_TOKEN_SECONDS",
    "TASKFLOW_LIMITS_CALLER_PER_MINUTE",
    "TASKFLOW_LIMITS_NAMESPACE_PER_MINUTE",
    "TASKFLOW_LIMITS_NAMESPACES",
    "TASKFLOW_LIMITS_KEY_PER_MINUTE",
    "TASKFLOW_LIMITS_KEYS",
)
"""Likewise for the REST API."""
WEBHOOK_SETTINGS = (
    "TASKFLOW_WEBHOOKS_KEY",
    "TASKFLOW_WEBHOOKS_KEY_FILE",
    "TASKFLOW_WEBHOOKS_ALLOW_HTTP",
    "TASKFLOW_WEBHOOKS_PORTS",
    "TASKFLOW_WEBHOOKS_ALLOWED",
    "TASKFLOW_WEBHOOKS_CA_FILE",
    "TASKFLOW_WEBHOOKS_PARALLEL",
    "TASKFLOW_WEBHOOKS_KEEP_DAYS",
)
"""Likewise for the API and the notifier, if webhooks are enabled."""
PROVISIONER_SETTINGS = (
    "TASKFLOW_PROVISIONER_ROTATE_AFTER_DAYS",
    "TASKFLOW_PROVISIONER_GRACE_SECONDS",
    "TASKFLOW_PROVISIONER_CHECK_SECONDS",
    "TASKFLOW_PROVISIONER_RESYNC_SECONDS",
)
"""Likewise for the provisioner."""
WEBHOOKS = "TASKFLOW_WEBHOOKS_ENABLED"
_HOST = "127.0.0.1"


def webhooks_wanted(base: Mapping[str, str]) -> bool:
    """Tell whether the environment of `taskflow-local up` asks for webhooks."""
    return base.get(WEBHOOKS, "").lower() in ("1", "true", "yes", "on", "y", "t")


def storage(components: Sequence[str]) -> str | None:
    """The component that serves S3 in this stack."""
    return next((name for name in ("minio", "versitygw") if name in components), None)


def service_urls(state: StackState) -> dict[str, str]:
    """The administrator's URLs and credentials of Redis, PostgreSQL and S3, as far as the stack has them."""
    found: dict[str, str] = {}
    if "redis" in state.components:
        found["TASKFLOW_REDIS_URL"] = _redis_url(state, "", state.redis_password)
    if "postgres" in state.components:
        login = f"taskflow:{state.postgres_password}"
        found["TASKFLOW_DATABASE_URL"] = f"postgresql+psycopg://{login}@{_HOST}:{state.ports['postgres']}/taskflow"
    if server := storage(state.components):
        found |= {
            "TASKFLOW_S3_ENDPOINT": f"http://{_HOST}:{state.ports[server]}",
            "TASKFLOW_S3_BUCKET": BUCKET,
            "TASKFLOW_S3_REGION": REGION,
            "TASKFLOW_S3_ACCESS_KEY": state.s3_access_key,
            "TASKFLOW_S3_SECRET_KEY": state.s3_secret_key,
        }
    return found


def _redis_url(state: StackState, user: str, password: str) -> str:
    return f"redis://{user}:{password}@{_HOST}:{state.ports['redis']}/0"


def administrator_redis(state: StackState) -> RedisSettings:
    """Redis as its administrator."""
    return RedisSettings(url=SecretStr(_redis_url(state, "", state.redis_password)))


def fixed_redis_users(state: StackState) -> dict[str, tuple[str, ...]]:
    """The Redis users of the components, and their rules."""
    return redis_users(
        (
            _redis_url(state, acl.OPERATOR, state.redis_operator_password),
            _redis_url(state, acl.API, state.redis_api_password),
        )
    )


def fixed_s3_users(state: StackState) -> tuple[FixedUser, ...]:
    """The users of the object store of the components."""
    return s3_users_of({acl.API: state.s3_api_secret_key}, BUCKET)


def storage_settings(state: StackState) -> StorageSettings:
    """The object store as its administrator."""
    urls = service_urls(state)
    return StorageSettings(
        endpoint=urls["TASKFLOW_S3_ENDPOINT"],
        bucket=BUCKET,
        region=REGION,
        access_key=SecretStr(state.s3_access_key),
        secret_key=SecretStr(state.s3_secret_key),
    )


def login(state: StackState, namespace: str) -> Login:
    """The login of a namespace's workers. versitygw, which represents other S3 servers in tests, has only one user."""
    kept = state.worker(namespace)
    if storage(state.components) == "versitygw":
        key = S3Key(state.s3_access_key, state.s3_secret_key, "shared")
    else:
        key = S3Key(s3_users(namespace, BUCKET)[0], kept.s3_secret_key, "own")
    return Login(kept.redis_password, key, kept.since)


def worker_environment(state: StackState, namespace: str) -> dict[str, str]:
    """What the workers of a namespace may know: their own users of Redis and S3, and no database login."""
    found, urls = login(state, namespace), service_urls(state)
    values: dict[str, str] = {}
    if "redis" in state.components:
        values |= redis_values(namespace, urls["TASKFLOW_REDIS_URL"], found.redis_password)
    if storage(state.components):
        values |= s3_values(storage_settings(state), found.s3)
    return values


def worker_manifest(state: StackState, namespace: str) -> dict[str, Any] | None:
    """The Secret `taskflow-worker` of a namespace; None if it is the provisioner's to make, or would be empty."""
    values = worker_environment(state, namespace)
    if not values or state.has_provisioner:
        return None
    return manifest(namespace, values, login(state, namespace))


def environment(component: str, state: StackState, folder: Folder, base: Mapping[str, str]) -> dict[str, str]:
    """Build the environment of a component: a minimal base and what the component must know."""
    found = {name: base[name] for name in ("PATH", "LANG", "TZ", "PYTHONPATH") if base.get(name)}
    found["HOME"] = str(folder.data)
    if component in ("minio", "versitygw"):
        names = (
            ("MINIO_ROOT_USER", "MINIO_ROOT_PASSWORD")
            if component == "minio"
            else ("ROOT_ACCESS_KEY", "ROOT_SECRET_KEY")
        )
        found |= dict(zip(names, (state.s3_access_key, state.s3_secret_key), strict=True))
        found |= {"MINIO_BROWSER": "off", "MINIO_UPDATE": "off"} if component == "minio" else {"VGW_REGION": REGION}
    if component == "provisioner":
        found |= _provisioner(state, base)
    if component in ("operator", "api", "node", "provisioner"):
        found |= {"KUBECONFIG": str(folder.conf / f"{component}.kubeconfig"), "PYTHONUNBUFFERED": "1"}
    if component == "node":
        found[PODS_PATH] = import_path(map(Path, state.handlers), folder.handlers, base.get("PYTHONPATH", ""))
    if component in ("operator", "api", "migrate", "notifier"):
        found |= service_urls(state) | {"TASKFLOW_LOG_FORMAT": "text"}
        # The administrator's. These components have their own users.
        found.pop("TASKFLOW_REDIS_URL", None)
    if component in ("api", "notifier"):
        found |= _webhook_settings(state, base)
    if component == "operator":
        found |= _operator(state, base)
    if component == "api":
        found |= _api_settings(state, base)
    if component == "notifier":
        found = {name: value for name, value in found.items() if not name.startswith("TASKFLOW_S3_")}
        found |= {"PYTHONUNBUFFERED": "1", "TASKFLOW_WEBHOOKS_HEALTH_HOST": _HOST}
        found["TASKFLOW_WEBHOOKS_HEALTH_PORT"] = str(state.ports["notifier"])
    return found


def _operator(state: StackState, base: Mapping[str, str]) -> dict[str, str]:
    found = {name: base[name] for name in OPERATOR_SETTINGS if name in base}
    if "redis" in state.components:
        found["TASKFLOW_REDIS_URL"] = _redis_url(state, acl.OPERATOR, state.redis_operator_password)
        found["TASKFLOW_CACHE_URL"] = found["TASKFLOW_REDIS_URL"]
    found |= {"TASKFLOW_TOKEN_KEY": state.token_key, "TASKFLOW_HEALTH_HOST": _HOST}
    found |= {"TASKFLOW_HEALTH_PORT": str(state.ports["operator"])}
    # A stack has one operator process, so a restarted one may take its Lease back at once.
    return found | {"TASKFLOW_LEADER_IDENTITY": "local", "TASKFLOW_LEADER_NAMESPACE": SYSTEM_NAMESPACE}


def _provisioner(state: StackState, base: Mapping[str, str]) -> dict[str, str]:
    """With the administrator's logins of Redis and S3, and no database login."""
    found = service_urls(state) | {"TASKFLOW_LOG_FORMAT": "text"}
    found.pop("TASKFLOW_DATABASE_URL", None)
    prefix = "TASKFLOW_PROVISIONER_"
    return (
        found
        | {name: base[name] for name in PROVISIONER_SETTINGS if name in base}
        | {
            f"{prefix}S3_LOGINS": "minio" if storage(state.components) == "minio" else "shared",
            f"{prefix}OPERATOR_REDIS_URL": _redis_url(state, acl.OPERATOR, state.redis_operator_password),
            f"{prefix}API_REDIS_URL": _redis_url(state, acl.API, state.redis_api_password),
            f"{prefix}API_S3_ACCESS_KEY": acl.API,
            f"{prefix}API_S3_SECRET_KEY": state.s3_api_secret_key,
            f"{prefix}HEALTH_HOST": _HOST,
            f"{prefix}HEALTH_PORT": str(state.ports["provisioner"]),
        }
    )


def _api_settings(state: StackState, base: Mapping[str, str]) -> dict[str, str]:
    found = {"TASKFLOW_API_HOST": _HOST, "TASKFLOW_API_PORT": str(state.ports["api"])}
    # All clients of a stack have this machine's address.
    found["TASKFLOW_API_CONNECTIONS_PER_ADDRESS"] = "5000"
    found |= {name: base[name] for name in API_SETTINGS if name in base}
    if storage(state.components) == "minio":
        found |= {"TASKFLOW_S3_ACCESS_KEY": acl.API, "TASKFLOW_S3_SECRET_KEY": state.s3_api_secret_key}
    if "redis" in state.components:
        url = _redis_url(state, acl.API, state.redis_api_password)
        found |= {"TASKFLOW_API_BROKER_URL": url, "TASKFLOW_LIMITS_URL": url, "TASKFLOW_CACHE_URL": url}
    return found


def _webhook_settings(state: StackState, base: Mapping[str, str]) -> dict[str, str]:
    if "notifier" not in state.components and not webhooks_wanted(base):
        return {}
    found = {name: base[name] for name in WEBHOOK_SETTINGS if name in base} | {WEBHOOKS: "true"}
    if "TASKFLOW_WEBHOOKS_KEY_FILE" not in found:
        found.setdefault("TASKFLOW_WEBHOOKS_KEY", state.webhooks_key)
    return found


def client_environment(state: StackState, folder: Folder, base: Mapping[str, str]) -> dict[str, str]:
    """Build the environment of a client of this stack. Includes PATH if local mode provides kubectl."""
    found: dict[str, str] = {}
    if "kube-apiserver" in state.components:
        found["KUBECONFIG"] = str(folder.kubeconfig)
    if (folder.bin / "kubectl").exists():
        found["PATH"] = f"{folder.bin}{os.pathsep}{base.get('PATH', os.defpath)}"
    if "api" in state.components:
        found["TASKFLOW_API_URL"] = f"http://{_HOST}:{state.ports['api']}"
    found |= service_urls(state)
    if state.client_token is not None:
        found["TASKFLOW_API_TOKEN"] = state.client_token
    return found
