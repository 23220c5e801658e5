from ipaddress import ip_address

import pytest

from taskflow_api.webhooks.url_policy import Policy, UrlNotAllowedError, check_addresses, check_url, public
from tests.hostile_urls import NAMES, URLS

PORT = 18443
LAX = Policy(ports=frozenset({80, 443, PORT}), http=True)
"""A policy that allows everything except addresses."""
INSIDE = [
    "127.0.0.1",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "100.100.100.200",
    "0.0.0.0",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "192.0.0.1",
    "192.0.0.192",
    "192.0.2.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "192.88.99.1",
    "168.63.129.16",
    "::",
    "::1",
    "::ffff:8.8.8.8",
    "::ffff:127.0.0.1",
    "::8.8.8.8",
    "64:ff9b::7f00:1",
    "64:ff9b::a00:1",
    "64:ff9b:1::808:808",
    "2002:808:808::1",
    "2001::1",
    "2001:db8::1",
    "3fff::1",
    "100::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
    "5f00::1",
    "4000::1",
]


@pytest.mark.parametrize("address", INSIDE)
def test_a_non_public_address_is_refused(address: str) -> None:
    assert not public(ip_address(address))


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "93.184.215.14", "2606:4700::1111", "2a00:1450:4001:82f::200e", "64:ff9b::808:808"]
)
def test_a_public_address_is_allowed(address: str) -> None:
    assert public(ip_address(address))


@pytest.mark.parametrize("url", URLS)
def test_a_hostile_url_is_refused_by_itself_or_by_its_addresses(url: str) -> None:
    def look() -> None:
        host = check_url(url.replace("{port}", str(PORT)), LAX).raw_host or ""
        check_addresses(host, NAMES[host], LAX)

    with pytest.raises(UrlNotAllowedError) as raised:
        look()
    assert "127.0.0.1" not in str(raised.value)


def test_the_table_is_long() -> None:
    assert len(set(URLS)) == len(URLS) >= 120


@pytest.mark.parametrize(
    "url",
    [
        "https://hooks.example.com",
        "https://hooks.example.com/a/b?token=x%20y&z=1#part",
        "https://hooks.example.com:8443/",
        "https://HOOKS.Example.COM/",
        "https://8.8.8.8/x",
        "https://[2606:4700::1111]/x",
        "https://[2606:4700:0:0::1111]:8443/",
        "https://xn--bcher-kva.example/",
        "https://1.example.com/",
        "https://a.b-c.d/@x",
    ],
)
def test_an_ordinary_url_is_allowed(url: str) -> None:
    assert check_url(url, Policy()).scheme == "https"


def test_http_and_ports_are_configurable() -> None:
    with pytest.raises(UrlNotAllowedError, match="expected https"):
        check_url("http://hooks.example.com:443/", Policy())
    with pytest.raises(UrlNotAllowedError, match="one of the ports 443, 8443, found 80"):
        check_url("http://hooks.example.com/", Policy(http=True))
    assert check_url("http://hooks.example.com/", Policy(frozenset({80}), http=True)).port == 80


def test_only_the_allowed_exceptions_pass() -> None:
    policy = Policy.of((443,), ("10.1.0.0/16", "hooks.corp", "::1"), http=False)
    assert check_url("https://10.1.255.1/", policy).host == "10.1.255.1"
    assert check_url("https://[::1]/", policy).host == "::1"
    assert check_url("https://hooks.corp/", policy).host == "hooks.corp"
    assert check_addresses("HOOKS.corp", ["192.168.0.1"], policy) == ["192.168.0.1"]
    assert check_addresses("hooks.example.com", ["10.1.0.1"], policy) == ["10.1.0.1"]
    for url in ("https://10.2.0.1/", "https://[::2]/", "https://other.corp/", "https://a.hooks.corp/"):
        with pytest.raises(UrlNotAllowedError):
            check_url(url, policy)
    with pytest.raises(UrlNotAllowedError, match="not public"):
        check_addresses("hooks.example.com", ["10.1.0.1", "10.2.0.1"], policy)


@pytest.mark.parametrize("entry", ["10.0.0.0/33", "10.0.0.1/8", "http://x", "a b", "", "*.corp", "127.1"])
def test_an_invalid_allowed_entry_is_an_error(entry: str) -> None:
    with pytest.raises(ValueError, match="expected an address"):
        Policy.of((443,), (entry,), http=False)
