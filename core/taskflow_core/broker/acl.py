"""Redis users with no more rights than they need (ACL with selectors: Redis 7.0 or newer).

`python -m taskflow_core.broker.acl NAMESPACE` reads the password of the workers' user from standard input and prints
the `ACL SETUSER` for redis-cli, with the password's digest.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence

from taskflow_core.domain import naming
from taskflow_core.errors import Invalid

OPERATOR = "taskflow-operator"
API = "taskflow-api"
_OWN_CONNECTION = ("+@connection", "-@dangerous", "-client|tracking")
"""By category, since a command that this Redis does not know yet is an error. Tracking would tell the names of all
keys."""
_TRANSACTIONS = ("+multi", "+exec", "+discard", "+unwatch")
_SCRIPTS = ("+script|load", "+script|exists", "+time")


def worker_user(namespace: str) -> str:
    """Name of the user of a namespace's workers."""
    return f"taskflow-worker-{namespace}"


def worker_rules(namespace: str, password: str) -> list[str]:
    """What the workers of a namespace may do, as arguments of `ACL SETUSER`, which also stand in a `user` line of
    redis.conf.

    Each selector binds commands to keys. A script is one `evalsha` on all of its keys, and then each of its commands is
    checked for itself, so a script can do nothing that its caller may not. But it can run for ever, and take any
    memory, so workers only run scripts that the operator has loaded.

    Raises:
        Invalid: the namespace is not a name that Kubernetes admits; a `*` in it would stand for all of them.
    """
    naming.check_namespace(namespace)
    keys = naming.keys_of(namespace)
    unacked = keys.unacked
    kombu = {
        f"~{naming.broker_queue(namespace, '*')}": "+brpop +llen +lpush +rpush",
        # Celery binds each queue that it serves; nobody reads it.
        f"%W~_kombu.binding.{naming.broker_queue(namespace, '*')}": "+sadd",
        f"%W~_kombu.binding_permanent.{naming.broker_queue(namespace, '*')}": "+sadd",
        f"~{unacked.messages}": "+hset +hget +hdel +watch",
        f"~{unacked.index}": "+zadd +zrem +zrange",
        f"~{unacked.mutex}": "+set +get +del",
    }
    protocol = {
        f"~{keys.claim_prefix}*": "+get +set +expire",
        f"%R~{keys.once_prefix}*": "+get",
        f"%R~{keys.epoch}": "+get",
        f"%R~{keys.stops}": "+hget",
        f"%R~{keys.intake}": "+hget",
        f"%W~{keys.ledger}": "+zrem",
        f"%W~{keys.leases}": "+zadd +zrem",
        f"%W~{keys.events}": "+xadd",
        f"%W~{keys.workers}": "+hset +hdel",
    }
    # redis-py's lock, which kombu takes, is given back by a script.
    scripts = [f"~{key.partition('~')[2]}" for key in protocol] + [f"~{unacked.mutex}"]
    return [
        *_login(password),
        *_OWN_CONNECTION,
        *_TRANSACTIONS,
        "+time",
        *(f"({key} {commands})" for key, commands in (kombu | protocol).items()),
        f"({' '.join(scripts)} +evalsha)",
    ]


def operator_rules(password: str) -> list[str]:
    """What the operator may do: everything with our keys, put messages into queues of all namespaces, look at the
    next.
    """
    return [
        *_login(password),
        *_OWN_CONNECTION,
        *_TRANSACTIONS,
        *_SCRIPTS,
        "+client|tracking",
        "(~tf:* +evalsha +watch +@read +@write -@dangerous)",
        "(~*.* +evalsha +lpush +llen +lindex +lrange)",
        f"(%W~{naming.KEY_API_PREFIX}mark:* +set)",
        "(%W~_kombu.binding.* %W~_kombu.binding_permanent.* +sadd)",
    ]


def api_rules(password: str) -> list[str]:
    """What the REST API may do: look where an attempt stands in its queue, and count requests under keys of its own."""
    return [
        *_login(password),
        *_OWN_CONNECTION,
        *_SCRIPTS,
        "(%R~tf:{*}:led +zscore)",
        "(%R~*.* +evalsha_ro +llen +lindex +lrange)",
        f"(~{naming.KEY_API_PREFIX}* +evalsha +get +set)",
    ]


def _login(password: str) -> tuple[str, ...]:
    return ("on", f"#{hashlib.sha256(password.encode()).hexdigest()}", "resetchannels", "-@all")


def main(arguments: Sequence[str]) -> int:
    """Print the command that makes the user of a namespace's workers, or the API's, or gives it today's rights."""
    if len(arguments) != 1 or not arguments[0]:
        print("expected one namespace or --api, and the password on standard input", file=sys.stderr)
        return 2
    password = sys.stdin.readline().strip()
    if not password:
        print("expected the password on standard input, found nothing", file=sys.stderr)
        return 2
    if arguments[0] == "--api":
        print("ACL SETUSER", API, "reset", *api_rules(password))
        return 0
    try:
        rules = worker_rules(arguments[0], password)
    except Invalid as error:
        print(error, file=sys.stderr)
        return 2
    print("ACL SETUSER", worker_user(arguments[0]), "reset", *rules)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
