"""kombu's Redis transport, whose connections find the primary by Sentinels.

kombu has one for Sentinels, too. It asks them without TLS, opens two sets of connections to them for each channel, and
takes turns among several URLs after a lost connection, without the options that we give to the first one.
"""

from __future__ import annotations

from typing import Any

from kombu.transport import redis as kombu_redis

from taskflow_core.redis_primary import Primary, PrimaryConnection, PrimarySSLConnection


class Channel(kombu_redis.Channel):  # type: ignore[misc]
    """A channel that takes the transport option `primary`."""

    from_transport_options = (*kombu_redis.Channel.from_transport_options, "primary")
    connection_class = PrimaryConnection
    connection_class_ssl = PrimarySSLConnection
    primary: Primary

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:
        return {**super()._connparams(asynchronous), "primary": self.primary}


class Transport(kombu_redis.Transport):  # type: ignore[misc]
    """The transport of such channels."""

    Channel = Channel
