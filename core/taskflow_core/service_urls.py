"""What a URL of Redis, PostgreSQL or S3 has to look like. Pure.

The libraries that read these URLs disagree on what is malformed: a database that is no number is database 0 for one
and an error for the other, an unencoded password moves the host, and their errors quote what they could not read, which
may be the password. So a URL is checked here first. No message has any part of it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import SplitResult, parse_qs, parse_qsl, unquote, urlsplit

REDIS_FORM = "redis://user:password@host:port/database, or rediss:// for TLS"
SENTINEL_FORM = "redis+sentinel://user:password@host:port,host:port/name/database, or rediss+sentinel:// for TLS"
DATABASE_FORM = "postgresql+psycopg://user:password@host:port/database"
ENDPOINT_FORM = "http(s)://host:port"
_ENCODING = "percent-encode each of / ? # [ ] @ % ; in the user and the password, such as %2F for /"
_BAD_ESCAPE = re.compile("%(?![0-9A-Fa-f]{2})")
_MAX_PORT = 65535
_SENTINEL_PORT = 26379
_SENTINEL_SCHEMES = frozenset({"redis+sentinel", "rediss+sentinel"})
_REDIS_OPTIONS = frozenset({"ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs", "ssl_check_hostname"})
_SSL_MODES = frozenset({"disable", "allow", "prefer", "require", "verify-ca", "verify-full"})


@dataclass(frozen=True, slots=True)
class Login:
    """User and password of a URL, decoded; None for what it does not have."""

    user: str | None
    password: str | None


@dataclass(frozen=True, slots=True)
class Sentinels:
    """The servers that know the primary of a Redis with this name."""

    addresses: tuple[tuple[str, int], ...]
    name: str


def login_of(url: str) -> Login:
    """Who logs in by a URL that was checked."""
    parts = urlsplit(url)
    return Login(
        None if parts.username is None else unquote(parts.username) or None,
        None if parts.password is None else unquote(parts.password) or None,
    )


def without_login(url: str) -> str:
    """The same URL with neither user nor password."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def sentinels_of(url: str) -> Sentinels | None:
    """The Sentinels in a URL of Redis that was checked; None if it has the address of Redis itself."""
    parts = urlsplit(url)
    if parts.scheme not in _SENTINEL_SCHEMES:
        return None
    addresses = [urlsplit(f"//{each}") for each in parts.netloc.rpartition("@")[2].split(",")]
    return Sentinels(
        tuple((each.hostname or "", each.port or _SENTINEL_PORT) for each in addresses), parts.path.split("/")[1]
    )


def of_one_server(url: str) -> str:
    """A URL of Redis without its login, as all libraries read it. In the place of several Sentinels is the first."""
    bare, found = without_login(url), sentinels_of(url)
    if found is None:
        return bare
    parts, (host, port) = urlsplit(bare), found.addresses[0]
    at = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    database = parts.path.removeprefix(f"/{found.name}")
    return parts._replace(scheme=parts.scheme.partition("+")[0], netloc=at, path=database).geturl()


def redis_url(text: str) -> str:
    """A URL of Redis without the spaces around it, whose certificate is verified if it has one.

    Raises:
        ValueError: it is malformed, or asks for less than a verified certificate of the right name.
    """
    by_sentinels = "sentinel" in text.partition("://")[0]
    form = SENTINEL_FORM if by_sentinels else REDIS_FORM
    parts = _split(text, set(_SENTINEL_SCHEMES) if by_sentinels else {"redis", "rediss"}, form)
    if ";" in text:
        # Celery takes it for the end of the first of several URLs.
        raise _malformed(form, f"found a ';'; {_ENCODING}")
    path = "/[A-Za-z0-9._-]+(/[0-9]{0,9})?" if by_sentinels else "(/[0-9]{0,9})?"
    if not re.fullmatch(path, parts.path, re.ASCII):
        name = "there is no name of the primary, or " if by_sentinels else ""
        raise _malformed(form, f"{name}the database is not a number")
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name == "ssl_cert_reqs" and value != "required":
            raise ValueError("ssl_cert_reqs may only be 'required': the certificate of Redis is always verified")
        if name == "ssl_check_hostname" and value.lower() != "true":
            raise ValueError("ssl_check_hostname may only be 'true': the host name of Redis is always verified")
    names = {part.partition("=")[0] for part in parts.query.split("&") if part}
    if not names <= _REDIS_OPTIONS:
        raise _malformed(form, f"after '?' there may only be {', '.join(sorted(_REDIS_OPTIONS))}")
    if names and not parts.scheme.startswith("rediss"):
        raise _malformed(form, "options of TLS need rediss" + ("+sentinel://" if by_sentinels else "://"))
    return text.strip()


def database_url(text: str) -> str:
    """A URL of PostgreSQL without the spaces around it; what follows `?` are options of libpq.

    Raises:
        ValueError: it is malformed.
    """
    parts = _split(text, {"postgresql+psycopg"}, DATABASE_FORM)
    options = parse_qs(parts.query, keep_blank_values=True)
    if not parts.hostname and not options.keys() & {"host", "hostaddr", "service"}:
        raise _malformed(DATABASE_FORM, "there is no host")
    if not re.fullmatch("(/[^/]*)?", parts.path):
        raise _malformed(DATABASE_FORM, "the database has a '/'")
    if not parts.path.strip("/") and not options.keys() & {"dbname", "service"}:
        raise _malformed(DATABASE_FORM, "there is no database")
    if not _SSL_MODES.issuperset(options.get("sslmode", ())):
        raise _malformed(DATABASE_FORM, f"sslmode may be {', '.join(sorted(_SSL_MODES))}")
    return text.strip()


def http_endpoint(text: str) -> str:
    """The address of a server by HTTP, without the spaces around it; empty if it is.

    Raises:
        ValueError: it is malformed, or has more than scheme, host and port.
    """
    if not text.strip():
        return ""
    parts = _split(text, {"http", "https"}, ENDPOINT_FORM)
    if "@" in parts.netloc:
        raise _malformed(ENDPOINT_FORM, "it has a user or a password, which have settings of their own")
    if not parts.hostname:
        raise _malformed(ENDPOINT_FORM, "there is no host")
    if parts.path.strip("/") or parts.query:
        raise _malformed(ENDPOINT_FORM, "there is more after the port")
    return text.strip()


def _split(text: str, schemes: set[str], form: str) -> SplitResult:
    """Its parts, as all libraries see them: with what RFC 3986 wants encoded."""
    text = text.strip()
    if not text:
        raise _malformed(form, "it is empty")
    # Python would leave line breaks out in silence.
    if not text.isprintable() or " " in text:
        raise _malformed(form, "it has a space, a line break or a control character")
    if text.partition("://")[0] not in schemes or "://" not in text:
        raise _malformed(form, "it begins otherwise")
    try:
        parts = urlsplit(text)
    except ValueError:
        raise _malformed(form, f"the host has brackets; {_ENCODING}") from None
    login, _, hosts = parts.netloc.rpartition("@")
    # A '/', '?' or '#' in the password ends the host before its '@'.
    behind = parts.path + parts.query + parts.fragment
    if re.search(r"[@\[\]]", login) or _BAD_ESCAPE.search(login) or "@" in behind or "#" in text:
        raise _malformed(form, _ENCODING)
    for address in hosts.split(",") if parts.scheme in _SENTINEL_SCHEMES else [hosts]:
        try:
            port = urlsplit(f"//{address}").port
        except ValueError:
            port = 0
        if port == 0 or address.endswith(":"):
            raise _malformed(form, f"the port is not a number from 1 to {_MAX_PORT}; {_ENCODING}")
        if address.startswith(":") or (not address and form in {REDIS_FORM, SENTINEL_FORM}):
            raise _malformed(form, "there is no host")
    return parts


def _malformed(form: str, found: str) -> ValueError:
    return ValueError(f"expected {form}; {found}")
