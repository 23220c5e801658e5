from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from kombu.utils.url import parse_url
from redis.asyncio.connection import parse_url as parse_redis_url
from sqlalchemy import make_url

from taskflow_core.service_urls import (
    Login,
    Sentinels,
    database_url,
    http_endpoint,
    login_of,
    of_one_server,
    redis_url,
    sentinels_of,
    without_login,
)

UNENCODED = [
    "se/cret",
    "se?cret",
    "se#cret",
    "se@cret",
    "se[cret",
    "se]cret",
    "s[e]cret",
    "se%cret",
    "se%zzcret",
    "6/cret",
]
"""Passwords that end the host, or mean something else, unless they are encoded."""
PORTS = ["secret", "0", "65536", "-1", "63 79", "6379x", "", "6379:6380"]
URLS: dict[Callable[[str], str], tuple[str, ...]] = {
    redis_url: (
        "redis://{login}host:{port}/0",
        "rediss://{login}host:{port}/0",
        "redis+sentinel://{login}host:26379,host:{port}/main/0",
    ),
    database_url: ("postgresql+psycopg://{login}host:{port}/database",) * 2,
}


@pytest.mark.parametrize("check", URLS)
@pytest.mark.parametrize("password", UNENCODED)
def test_an_unencoded_password_is_refused_without_being_shown(check: Callable[[str], str], password: str) -> None:
    for form in URLS[check]:
        for login in (f"user:{password}@", f":{password}@", f"{password}:word@"):
            with pytest.raises(ValueError, match="percent-encode") as caught:
                check(form.format(login=login, port=6379))
            assert "cret" not in str(caught.value)
            assert caught.value.__cause__ is None


@pytest.mark.parametrize("check", URLS)
@pytest.mark.parametrize("port", PORTS)
def test_a_port_that_is_none_is_refused_without_being_shown(check: Callable[[str], str], port: str) -> None:
    for login in ("user:word@", ""):
        for form in URLS[check]:
            with pytest.raises(ValueError, match=r"the port is not a number|space|host") as caught:
                check(form.format(login=login, port=port))
            assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "host:6379",
        "redis:/host:6379/0",
        "http://host:6379/0",
        "unix:///var/run/redis.sock",
        "redis://",
        "redis://:secret@/0",
        "redis://:secret@:6379/0",
        "redis://:secret@host:6379/secret",
        "redis://:secret@host:6379/-1",
        "redis://:secret@host:6379/1/2",
        "redis://:secret@host:6379/0/",
        "redis://:secret@host:6379/0?db=1",
        "redis://:secret@host:6379/0?ssl_ca_certs=/ca.crt",
        "rediss://:secret@host:6379/0?socket_timeout=1",
        "redis://:secret@host:6379/0;redis://other",
        "redis://:se;cret@host:6379/0",
        "redis://:se cret@host:6379/0",
        "redis://:se\ncret@host:6379/0",
        "redis://:se\tcret@host:6379/0",
        "redis://:secret@ho\u2100st:6379/0",
        "redis://:secret@host:6379,host2:6379/0",
    ],
)
def test_another_malformed_url_of_redis_is_refused_without_being_shown(url: str) -> None:
    with pytest.raises(ValueError, match="expected redis://") as caught:
        redis_url(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "sentinel://:secret@host:26379/0",
        "sentinel://:secret@host:26379;sentinel://host2:26379",
        "redis+sentinel://:secret@host:26379",
        "redis+sentinel://:secret@host:26379/",
        "redis+sentinel://:secret@host:26379/0/main",
        "redis+sentinel://:secret@host:26379/main/secret",
        "redis+sentinel://:secret@host:26379/main/0/1",
        "redis+sentinel://:secret@host:26379/ma%20in/0",
        "redis+sentinel://:secret@host:26379,/main/0",
        "redis+sentinel://:secret@,host:26379/main/0",
        "redis+sentinel://:secret@host:26379,:26379/main/0",
        "redis+sentinel://:secret@/main/0",
        "redis+sentinel://:secret@host:26379/main/0?ssl_ca_certs=/ca.crt",
        "rediss+sentinel://:secret@host:26379/main/0?master=secret",
        "redis+sentinel://:secret@host:26379;host2:26379/main/0",
    ],
)
def test_a_malformed_url_of_sentinels_is_refused_without_being_shown(url: str) -> None:
    with pytest.raises(ValueError, match=re.escape("expected redis+sentinel://")) as caught:
        redis_url(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "sentinels", "one"),
    [
        ("redis+sentinel://host/main", Sentinels((("host", 26379),), "main"), "redis://host:26379"),
        (
            "redis+sentinel://user:p%2Fw,d@one:26379,two:26380,three/my-main.1/3",
            Sentinels((("one", 26379), ("two", 26380), ("three", 26379)), "my-main.1"),
            "redis://one:26379/3",
        ),
        (
            " rediss+sentinel://user:p%2Fw@[::1]:26379,[::2]/0/0?ssl_ca_certs=/ca.crt\n",
            Sentinels((("::1", 26379), ("::2", 26379)), "0"),
            "rediss://[::1]:26379/0?ssl_ca_certs=/ca.crt",
        ),
    ],
)
def test_a_url_of_sentinels_has_all_of_them_and_is_for_libraries_that_of_one(
    url: str, sentinels: Sentinels, one: str
) -> None:
    found = redis_url(url)
    assert (found, sentinels_of(found), of_one_server(found)) == (url.strip(), sentinels, one)
    assert redis_url(one) == one


def test_a_url_of_redis_itself_has_no_sentinels() -> None:
    assert sentinels_of("redis://:word@host:6379/0") is None
    assert of_one_server("redis://:word@host:6379/0") == "redis://host:6379/0"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "host:5432/db",
        "postgresql://user:secret@host/db",
        "mysql://user:secret@host/db",
        "postgresql+psycopg://user:secret@/db",
        "postgresql+psycopg://user:secret@host:5432",
        "postgresql+psycopg://user:secret@host:5432/",
        "postgresql+psycopg://user:secret@host:5432/db/secret",
        "postgresql+psycopg://user:secret@host:5432/db?sslmode=secret",
        "postgresql+psycopg://user:secret@host:5432/db#secret",
        "postgresql+psycopg://user:se cret@host:5432/db",
    ],
)
def test_another_malformed_url_of_postgresql_is_refused_without_being_shown(url: str) -> None:
    with pytest.raises(ValueError, match=re.escape("expected postgresql+psycopg://")) as caught:
        database_url(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "host:9000",
        "ftp://host",
        "https://",
        "https://user:secret@host",
        "https://host/secret",
        "https://host?secret",
        "https://host#secret",
        "https://host:secret",
        "https://host:70000",
        "https://:9000",
    ],
)
def test_a_malformed_endpoint_is_refused_without_being_shown(url: str) -> None:
    with pytest.raises(ValueError, match=re.escape("expected http(s)://host:port")) as caught:
        http_endpoint(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "login"),
    [
        ("redis://host", Login(None, None)),
        ("redis://host:6379", Login(None, None)),
        ("redis://:pass%2Fword@host:6379/3", Login(None, "pass/word")),
        ("rediss://user:p%40s%25s:w@host:6380/15?ssl_ca_certs=/etc/ca%20s.crt", Login("user", "p@s%s:w")),
        ("rediss://user:word@[::1]:6380/0?ssl_cert_reqs=required&ssl_check_hostname=true", Login("user", "word")),
        (" redis://:word@host:6379/0\n", Login(None, "word")),
    ],
)
def test_a_url_of_redis_means_to_all_libraries_what_it_means_to_us(url: str, login: Login) -> None:
    found = redis_url(url)
    assert found == url.strip()
    assert login_of(found) == login
    ours, celerys = parse_redis_url(found), parse_url(found)
    assert (ours.get("username") or None, ours.get("password")) == (login.user, login.password)
    assert (celerys["userid"], celerys["password"]) == (login.user, login.password)
    assert int(celerys["virtual_host"] or 0) == ours.get("db", 0)
    assert (celerys["hostname"], celerys["port"]) == (ours["host"], ours.get("port"))
    bare = parse_redis_url(without_login(found))
    assert bare == {name: value for name, value in ours.items() if name not in ("username", "password")}


@pytest.mark.parametrize(
    ("url", "login"),
    [
        ("postgresql+psycopg://user:p%2F%40%25@host:5432/db?sslmode=verify-full", Login("user", "p/@%")),
        ("postgresql+psycopg://user@host/db", Login("user", None)),
        ("postgresql+psycopg://user:word@/db?host=one:5432&host=two:5432", Login("user", "word")),
        ("postgresql+psycopg://user:word@/db?host=/var/run/postgresql", Login("user", "word")),
        ("postgresql+psycopg://user:word@[::1]:5432/db\n", Login("user", "word")),
    ],
)
def test_a_url_of_postgresql_means_to_sqlalchemy_what_it_means_to_us(url: str, login: Login) -> None:
    found = database_url(url)
    parsed = make_url(found)
    assert login_of(found) == login == Login(parsed.username, parsed.password)
    assert parsed.database == "db"


def test_an_endpoint_is_left_as_it_is() -> None:
    for url in ("", "http://host", "https://host:9000/", "https://[::1]:9000"):
        assert http_endpoint(url) == url
