"""Which URLs webhooks may call. Pure.

Users of a namespace choose the URLs, and the notifier calls them from within the cluster's network. Against server-side
request forgery, the URL is checked first, and each address again before the connection.
https://cheatsheetseries.owasp.org/cheatsheets/Server_Side_Request_Forgery_Prevention_Cheat_Sheet.html
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
"""A last label that makes a host an IPv4 address (https://url.spec.whatwg.org/#ends-in-a-number-checker)."""
_INTERNAL = frozenset(
    {
        "localhost",
        "local",
        "localdomain",
        "internal",
        "svc",
        "lan",
        "intranet",
        "corp",
        "home",
        "arpa",
        "onion",
    }
)
"""Last labels of names that are not public, such as `cluster.local` and `metadata.google.internal`."""

# In addition to `is_global`, which depends on the Python version.
# https://www.iana.org/assignments/iana-ipv4-special-registry
_SPECIAL: tuple[Network, ...] = tuple(
    map(
        ip_network,
        (
            "0.0.0.0/8",
            "100.64.0.0/10",
            "192.0.0.0/24",
            "192.88.99.0/24",
            "198.18.0.0/15",
            "224.0.0.0/3",
            # The metadata and DNS service of Azure, which has a public address.
            "168.63.129.16/32",
            # 6to4; 2001::/23, which includes Teredo; documentation. Addresses outside 2000::/3 are refused anyway.
            "2002::/16",
            "2001::/23",
            "2001:db8::/32",
            "3fff::/20",
        ),
    )
)
_GLOBAL_UNICAST = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")


class UrlNotAllowedError(TaskflowError):
    """The URL or an address of its host is not allowed. The message gives the reason without the URL."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What the installation allows."""

    ports: frozenset[int] = frozenset({443, 8443})
    http: bool = False
    """Whether http URLs are allowed."""
    hosts: frozenset[str] = frozenset()
    """Host names whose addresses are not checked."""
    networks: tuple[Network, ...] = field(default=())
    """Networks that are allowed although they are not public."""

    @classmethod
    def of(cls, ports: Iterable[int], allowed: Iterable[str], *, http: bool) -> Policy:
        """The policy from settings. Entries of `allowed` are addresses, networks (CIDR) or host names.

        Raises:
            ValueError: an entry is none of these.
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
        """Whether connections to the address are allowed."""
        return any(address in network for network in self.networks) or public(address)


def public(address: Address) -> bool:
    """Whether the address is public: not special-purpose, and not a form of a special-purpose IPv4 address."""
    if isinstance(address, IPv6Address):
        if address in _NAT64:
            # NAT64 (RFC 6052): hosts without IPv4 reach public servers this way.
            return public(IPv4Address(int(address) & 0xFFFFFFFF))
        if address not in _GLOBAL_UNICAST or address.scope_id is not None:
            return False
    return address.is_global and not address.is_multicast and not any(address in network for network in _SPECIAL)


def check_url(url: str, policy: Policy) -> URL:
    """The URL as the HTTP client parses it.

    Raises:
        UrlNotAllowedError: the URL is not allowed, whatever its host resolves to.
    """
    if len(url) > MAX_URL_CHARS:
        raise UrlNotAllowedError(f"expected at most {MAX_URL_CHARS} characters")
    if not _PRINTABLE.fullmatch(url):
        raise UrlNotAllowedError(
            "expected ASCII without spaces, controls, quotes or backslashes; names in Punycode (xn--)"
        )
    authority = _AUTHORITY.match(url)
    if authority is None:
        raise UrlNotAllowedError("expected https://host/path")
    if "@" in authority[1]:
        raise UrlNotAllowedError("expected no user or password in the URL; the signature identifies the sender")
    found = _HOST_PORT.fullmatch(authority[1])
    if found is None:
        raise UrlNotAllowedError("expected a host and an optional port after https://")
    try:
        read = URL(url)
        host, port = read.raw_host, read.port
    except ValueError:
        raise UrlNotAllowedError("expected a URL") from None
    # The parser of the HTTP client must see the same host as the checks above.
    if host is None or port is None or not (found[1].lower() == host or _same_address(found[1], host)):
        raise UrlNotAllowedError("expected a plain host name")
    if read.scheme != "https" and not policy.http:
        raise UrlNotAllowedError("expected https; this installation does not allow http")
    if port not in policy.ports:
        raise UrlNotAllowedError(f"expected one of the ports {', '.join(map(str, sorted(policy.ports)))}, found {port}")
    _check_host(host, policy)
    return read


def check_addresses(host: str, addresses: Iterable[str], policy: Policy) -> list[str]:
    """The addresses as a list.

    Raises:
        UrlNotAllowedError: there are none, or one of them is not allowed. A mix of both suggests an attack.
    """
    found = list(addresses)
    if not found:
        raise UrlNotAllowedError("the host has no address")
    if host.lower() not in policy.hosts:
        for each in found:
            if not policy.permits(ip_address(each)):
                raise UrlNotAllowedError("the host has an address that is not public")
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
            raise UrlNotAllowedError("expected a public address")
        return
    if not _is_name(host.lower()) or "." not in host:
        raise UrlNotAllowedError("expected a full host name such as hooks.example.com, without a trailing dot")
    if host.lower().rpartition(".")[2] in _INTERNAL:
        raise UrlNotAllowedError("expected a public host name, found an internal one")


def _same_address(written: str, read: str) -> bool:
    """Whether both spell the same IPv6 address."""
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
