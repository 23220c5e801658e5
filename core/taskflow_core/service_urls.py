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
DATABASE_FORM = "postgresql+psycopg://user:password@host:port/database"
ENDPOINT_FORM = "http(s)://host:port"
_ENCODING = "percent-encode each of / ? # [ ] @ % ; in the user and the password, such as %2F for /"
_BAD_ESCAPE = re.compile("%(?![0-9A-Fa-f]{2})")
_MAX_PORT = 65535
_REDIS_OPTIONS = frozenset({"ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs", "ssl_check_hostname"})
_SSL_MODES = frozenset({"disable", "allow", "prefer", "require", "verify-ca", "verify-full"})


@dataclass(frozen=True, slots=True)
class Login:
    """User and password of a URL, decoded; None for what it does not have."""

    user: str | None
    password: str | None


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


def redis_url(text: str) -> str:
    """A URL of Redis without the spaces around it, whose certificate is verified if it has one.

    Raises:
        ValueError: it is malformed, or asks for less than a verified certificate of the right name.
    """
    parts = _split(text, {"redis", "rediss"}, REDIS_FORM)
    if ";" in text:
        # Celery takes it for the end of the first of several URLs.
        raise _malformed(REDIS_FORM, f"found a ';'; {_ENCODING}")
    if not parts.hostname:
        raise _malformed(REDIS_FORM, "there is no host")
    if not re.fullmatch("(/[0-9]{0,9})?", parts.path, re.ASCII):
        raise _malformed(REDIS_FORM, "the database is not a number")
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name == "ssl_cert_reqs" and value != "required":
            raise ValueError("ssl_cert_reqs may only be 'required': the certificate of Redis is always verified")
        if name == "ssl_check_hostname" and value.lower() != "true":
            raise ValueError("ssl_check_hostname may only be 'true': the host name of Redis is always verified")
    names = {part.partition("=")[0] for part in parts.query.split("&") if part}
    if not names <= _REDIS_OPTIONS:
        raise _malformed(REDIS_FORM, f"after '?' there may only be {', '.join(sorted(_REDIS_OPTIONS))}")
    if names and parts.scheme != "rediss":
        raise _malformed(REDIS_FORM, "options of TLS need rediss://")
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
    login, _, _ = parts.netloc.rpartition("@")
    # A '/', '?' or '#' in the password ends the host before its '@'.
    behind = parts.path + parts.query + parts.fragment
    if re.search(r"[@\[\]]", login) or _BAD_ESCAPE.search(login) or "@" in behind or "#" in text:
        raise _malformed(form, _ENCODING)
    try:
        port = parts.port
    except ValueError:
        port = 0
    if port == 0 or parts.netloc.endswith(":"):
        raise _malformed(form, f"the port is not a number from 1 to {_MAX_PORT}; {_ENCODING}")
    return parts


def _malformed(form: str, found: str) -> ValueError:
    return ValueError(f"expected {form}; {found}")
