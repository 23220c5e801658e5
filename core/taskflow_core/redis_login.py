"""How connections to Redis log in."""

from __future__ import annotations

import redis
from pydantic import SecretStr
from redis.exceptions import ConnectionError as RedisConnectionError

from taskflow_core.service_urls import login_of, redis_url


class RedisLogin(redis.CredentialProvider):
    """User and password of a URL, looked up for each connection: if the URL is in a file, it may have changed.

    Args:
        url: with the login. Only its user and password may change.
    """

    def __init__(self, url: SecretStr) -> None:
        self._url = url

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        """The arguments of AUTH.

        Raises:
            redis.exceptions.ConnectionError: the file cannot be read, or what it has is no URL with a password.
        """
        try:
            login = login_of(redis_url(self._url.get_secret_value()))
        except (OSError, ValueError) as error:
            said = error.strerror if isinstance(error, OSError) else str(error)
            raise RedisConnectionError(f"the URL of Redis cannot be read again: {said}") from None
        if login.password is None:
            raise RedisConnectionError("the URL of Redis has no password any more")
        return (login.password,) if login.user is None else (login.user, login.password)

    async def get_credentials_async(self) -> tuple[str] | tuple[str, str]:
        """The same, for asyncio; a small file keeps no loop waiting."""
        return self.get_credentials()


def redis_login(url: SecretStr) -> RedisLogin | None:
    """How to log in by a URL; None if it has no password."""
    return None if login_of(url.get_secret_value()).password is None else RedisLogin(url)
