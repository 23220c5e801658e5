"""Which URLs may be called: pure, and asked twice, with the URL and with each address at the moment of connecting to it.

The URLs come from users of a namespace, and are called from inside the cluster's network (server-side request forgery,
https://cheatsheetseries.owasp.org/cheatsheets/Server_Side_Request_Forgery_Prevention_Cheat_Sheet.html).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from yarl import URL

from taskflow_core.errors import TaskflowError

MAX_URL_CHARS = 2048
MAX_HOST_CHARS = 253
Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_PRINTABLE = re.compile(r"[!#$%&'()*+,\-./0-9:;=?@A-Z\[\]_a-z~]+")
_AUTHORITY = re.compile(r"https?://([^/?#]*)", re.IGNORECASE)
_HOST_PORT = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+)(?::([0-9]{1,5}))?")
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
"""A last label that WHATWG's URL standard (https://url.spec.whatwg.org/#ends-in-a-number-checker) takes for an address."""
_INSIDE = frozenset({"localhost", "local", "localdomain", "internal", "svc", "lan", "intranet", "corp", "home", "arpa", "onion"})  # fmt: skip
"""Last labels of names that are none of the Internet's; `cluster.local` and `metadata.google.internal` are among them."""

# Beyond what `is_global` knows in each version of Python. https://www.iana.org/assignments/iana-ipv4-special-registry
_NEVER: tuple[Network, ...] = tuple(
    map(
        ip_network,
        (
            "0.0.0.0/8", "100.64.0.0/10", "192.0.0.0/24", "192.88.99.0/24", "198.18.0.0/15", "224.0.0.0/3",
            # Azure's metadata and DNS, which is no private address.
            "168.63.129.16/32",
            # 6to4; all of 2001::/23, Teredo among it; documentation. What is not in 2000::/3 is refused anyway.
            "2002::/16", "2001::/23", "2001:db8::/32", "3fff::/20",
        ),
    )
)  # fmt: skip
_GLOBAL_UNICAST = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")


class RefusedError(TaskflowError):
    """The URL, or an address of its host, may not be called; the message says why, without the URL."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What an installation allows."""

    ports: frozenset[int] = frozenset({443, 8443})
    http: bool = False
    """Without TLS too."""
    hosts: frozenset[str] = frozenset()
    """Names whose addresses are not looked at."""
    networks: tuple[Network, ...] = field(default=())
    """Addresses that may be called although they are not public."""

    @classmethod
    def of(cls, ports: Iterable[int], allowed: Iterable[str], *, http: bool) -> Policy:
        """From settings; an entry of `allowed` is an address, a network (CIDR), or a name.

        Raises:
            ValueError: an entry is none of them.
        """
        hosts, networks = set[str](), list[Network]()
        for entry in allowed:
            try:
                networks.append(ip_network(entry))
            except ValueError:
                name = entry.lower()
                if not _is_name(name):
                    raise ValueError(
                        f"expected an address, a network such as 10.1.0.0/16 or a host, found {entry!r}"
                    ) from None
                hosts.add(name)
        return cls(frozenset(ports), http, frozenset(hosts), tuple(networks))

    def permits(self, address: Address) -> bool:
        """Whether the address may be connected to."""
        return any(address in network for network in self.networks) or public(address)


def public(address: Address) -> bool:
    """Whether it is one of the Internet's: neither special in itself nor a cover for an IPv4 address that is."""
    if isinstance(address, IPv6Address):
        if address in _NAT64:
            # How a host without IPv4 reaches a public server (RFC 6052).
            return public(IPv4Address(int(address) & 0xFFFFFFFF))
        if address not in _GLOBAL_UNICAST or address.scope_id is not None:
            return False
    return address.is_global and not address.is_multicast and not any(address in network for network in _NEVER)


def check_url(url: str, policy: Policy) -> URL:
    """The URL as the HTTP client will read it.

    Raises:
        RefusedError: it may not be called, whatever its name may resolve to.
    """
    if len(url) > MAX_URL_CHARS:
        raise RefusedError(f"expected at most {MAX_URL_CHARS} characters")
    if not _PRINTABLE.fullmatch(url):
        raise RefusedError("expected ASCII without spaces, controls, quotes or backslashes; names in Punycode (xn--)")
    authority = _AUTHORITY.match(url)
    if authority is None:
        raise RefusedError("expected https://host/path")
    if "@" in authority[1]:
        raise RefusedError("expected no user or password in the URL; the signature tells who sends")
    found = _HOST_PORT.fullmatch(authority[1])
    if found is None:
        raise RefusedError("expected a host and perhaps a port after https://")
    try:
        read = URL(url)
        host, port = read.raw_host, read.port
    except ValueError:
        raise RefusedError("expected a URL") from None
    # The parser that will be connected by has to see what was looked at here.
    if host is None or port is None or not (found[1].lower() == host or _same_address(found[1], host)):
        raise RefusedError("expected a plain host name")
    if read.scheme != "https" and not policy.http:
        raise RefusedError("expected https; this installation does not allow http")
    if port not in policy.ports:
        raise RefusedError(f"expected one of the ports {', '.join(map(str, sorted(policy.ports)))}, found {port}")
    _check_host(host, policy)
    return read


def check_addresses(host: str, addresses: Iterable[str], policy: Policy) -> list[str]:
    """All of the addresses.

    Raises:
        RefusedError: there is none, or one of them may not be connected to: who mixes them is up to something.
    """
    found = list(addresses)
    if not found:
        raise RefusedError("the host has no address")
    if host.lower() not in policy.hosts:
        for each in found:
            if not policy.permits(ip_address(each)):
                raise RefusedError("the host has an address that is not public")
    return found


def _check_host(host: str, policy: Policy) -> None:
    if host.lower() in policy.hosts:
        return
    try:
        address = ip_address(host)
    except ValueError:
        address = None
    if address is not None:
        if not policy.permits(address):
            raise RefusedError("expected a public address")
        return
    if not _is_name(host.lower()) or "." not in host:
        raise RefusedError("expected a full host name such as hooks.example.com, without a dot at its end")
    if host.lower().rpartition(".")[2] in _INSIDE:
        raise RefusedError("expected a name of the Internet, found one of an inner network")


def _same_address(written: str, read: str) -> bool:
    """Whether two spellings are of one IPv6 address."""
    try:
        return written.startswith("[") and ip_address(written.strip("[]")) == ip_address(read)
    except ValueError:
        return False


def _is_name(host: str) -> bool:
    labels = host.split(".")
    return (
        len(host) <= MAX_HOST_CHARS
        and all(_LABEL.fullmatch(each) for each in labels)
        and not _NUMBER.fullmatch(labels[-1])
    )
