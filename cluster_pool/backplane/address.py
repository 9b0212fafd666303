"""Where Redis is, and how a socket to it is opened; foreign errors become ours here."""

import contextlib
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import redis.asyncio as redis_asyncio
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from cluster_pool.exceptions import BackplaneUnavailableError, InvalidValueError

Raw = AbstractConnection


class Address:
    """A Redis: its address, credentials and TLS, from a URL or from a user's own client.

    What the client says of time-outs, retries, decoding and protocol is left aside: a link that
    reconnects or retries by itself could deliver a message twice.
    """

    def __init__(self, redis: "str | redis_asyncio.Redis", connect_timeout: float) -> None:
        if isinstance(redis, str):
            self.shown = hide_password(redis)
            try:
                pool = redis_asyncio.ConnectionPool.from_url(redis)
            except ValueError as error:
                raise InvalidValueError(f"{self.shown} is no Redis URL: {error}") from None
        elif isinstance(redis, redis_asyncio.Redis):
            pool = redis.connection_pool
            self.shown = _shown_from(pool.connection_kwargs)
        else:
            raise InvalidValueError(
                f"redis must be a URL or a redis.asyncio.Redis, not {type(redis).__name__}"
            )
        self._class: type[Raw] = pool.connection_class
        self._settings = {
            **pool.connection_kwargs,
            "protocol": 2,
            "socket_timeout": None,
            "socket_connect_timeout": connect_timeout,
            "retry": Retry(NoBackoff(), 0),
            "retry_on_timeout": False,
            "retry_on_error": [],
            "health_check_interval": 0,
            "decode_responses": False,
            "encoding": "utf-8",
            "driver_info": None,
        }

    async def open(self) -> Raw:
        """A new connected socket, authenticated and with its database selected.

        Raises:
            BackplaneUnavailableError: it could not be made; the text names the address without
                its password.
        """
        connection = self._class(**self._settings)
        with translated(f"cannot reach Redis at {self.shown}"):
            try:
                await connection.connect()
            except BaseException:
                await connection.disconnect(nowait=True)
                raise
        return connection


@contextlib.contextmanager
def translated(what: str, maybe_executed: bool = False) -> Iterator[None]:
    """Turn what redis-py and the socket raise into BackplaneUnavailableError."""
    try:
        yield
    except (RedisError, OSError, EOFError) as error:
        reason = str(error) or type(error).__name__
        raise BackplaneUnavailableError(
            f"{what}: {reason}", maybe_executed=maybe_executed
        ) from error


def hide_password(url: str) -> str:
    """``url`` without its password, also when the URL is not well formed."""
    try:
        parts = urlsplit(url)
        if parts.password is None and "password=" not in parts.query:
            return url
        user = parts.username or ""
        host = parts.netloc.rpartition("@")[2]
        netloc = f"{user}:***@{host}" if parts.password is not None else parts.netloc
        query = "&".join(
            "password=***" if item.startswith("password=") else item
            for item in parts.query.split("&")
        )
        return urlunsplit((parts.scheme, netloc, parts.path, query, ""))
    except ValueError:
        return f"{url.partition('://')[0]}://…"


def _shown_from(settings: dict[str, Any]) -> str:
    if "path" in settings:
        return f"unix://{settings['path']}"
    host, port = settings.get("host", "localhost"), settings.get("port", 6379)
    return f"redis://{host}:{port}/{settings.get('db') or 0}"
