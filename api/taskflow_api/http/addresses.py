"""Where a request comes from, for limits that hold for one client and not for all."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any

_IPV6_NETWORK = 64


def source(scope: Mapping[str, Any]) -> str:
    """The address of the client of an ASGI scope; of IPv6 its network, because one client has all addresses of it.

    It is the connection's, or what a trusted proxy says of it (`TASKFLOW_API_TRUSTED_PROXIES`); empty if unknown.
    """
    client = scope.get("client")
    return network(client[0]) if client else ""


def network(host: str) -> str:
    """An address as `source` returns it."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((int(address), _IPV6_NETWORK), strict=False))
