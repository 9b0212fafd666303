"""Where Redis is, and how a socket to it is opened; foreign errors become ours here."""

import asyncio
import contextlib
import re
from collections.abc import Iterator
from typing import Any

import redis.asyncio as redis_asyncio
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from cluster_pool.backplane.refusals import said, with_advice
from cluster_pool.core.ids import exact, shown
from cluster_pool.core.keys import DEFAULT_PREFIX
from cluster_pool.exceptions import BackplaneUnavailableError, InvalidValueError

Raw = AbstractConnection

CHECK_URL = "check its scheme and options, and percent-encode what is special in its password"


class Address:
    """A Redis: its address, credentials and TLS, from a URL or from a user's own client.

    What the client says of time-outs, retries, decoding and protocol is left aside: a link that
    reconnects or retries by itself could deliver a message twice.
    """

    def __init__(self, redis: "str | redis_asyncio.Redis", connect_timeout: float) -> None:
        if isinstance(redis, str):
            redis = exact(redis)
            self.shown = hide_password(redis)
            try:
                pool = redis_asyncio.ConnectionPool.from_url(redis)
                pool.connection_class(**pool.connection_kwargs)  # refuses unknown options
            except (ValueError, TypeError, RedisError) as error:
                # The reason may quote a part of the password.
                reason = CHECK_URL if self.shown != redis else str(error)
                raise InvalidValueError(
                    f"{shown(self.shown, 200)} is no Redis URL: {reason}"
                ) from None
        elif isinstance(redis, redis_asyncio.Redis):
            pool = redis.connection_pool
            self.shown = _shown_from(pool.connection_kwargs)
        else:
            raise InvalidValueError(
                f"redis must be a URL or a redis.asyncio.Redis, not {type(redis).__name__}"
            )
        self._database = str(pool.connection_kwargs.get("db") or 0)
        self._timeout = connect_timeout
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

    def check_prefix(self, prefix: str) -> None:
        """Refuse the default prefix in a database other than 0.

        Channels belong to no database: two clusters on /1 and /2 with one prefix would hear each
        other, while each finds its own keys.
        """
        if self._database != "0" and prefix == DEFAULT_PREFIX:
            raise InvalidValueError(
                f"{shown(self.shown, 200)} names database {shown(self._database)}, and channels "
                "belong to no database: clusters with one prefix would hear each other. Use "
                "database 0, or give each cluster a prefix of its own: prefix= (--prefix)"
            )

    async def open(self) -> Raw:
        """A new connected socket, authenticated and with its database selected.

        redis-py's connect time-out ends with TCP's handshake; the answers after it are waited for
        no longer than that either.

        Raises:
            BackplaneUnavailableError: it could not be made in time; the text names the address
                without its password.
        """
        connection = self._class(**self._settings)
        with translated(f"cannot reach Redis at {self.shown}"):
            try:
                async with asyncio.timeout(self._timeout):
                    await connection.connect()
            except BaseException:
                await connection.disconnect(nowait=True)
                raise
        return connection


@contextlib.contextmanager
def translated(what: str, maybe_executed: bool = False) -> Iterator[None]:
    """Turn what redis-py and the socket raise into BackplaneUnavailableError.

    uvloop raises RuntimeError when a socket is written to that has just been reset.
    """
    try:
        yield
    except (RedisError, OSError, EOFError, RuntimeError) as error:
        reason = with_advice(said(error))
        raise BackplaneUnavailableError(
            f"{what}: {reason}", maybe_executed=maybe_executed
        ) from error


_CREDENTIALS = re.compile(r"^((?:\w+://)?+[^:]*):.*@", re.DOTALL)
_PASSWORD_OPTION = re.compile(r"(password=)[^&]*")


def hide_password(url: str) -> str:
    """``url`` without what may be its password, also when the URL is not well formed.

    That is all from the first colon behind the scheme to the last @: somebody may have left a
    slash, a hash or an @ in a password as it is.
    """
    return _PASSWORD_OPTION.sub(r"\1***", _CREDENTIALS.sub(r"\1:***@", url))


def _shown_from(settings: dict[str, Any]) -> str:
    if "path" in settings:
        return f"unix://{settings['path']}"
    host, port = settings.get("host", "localhost"), settings.get("port", 6379)
    return f"redis://{host}:{port}/{settings.get('db') or 0}"
