"""The address of Redis, read from a URL or a client, and its sockets; translates their errors."""

import asyncio
import contextlib
from typing import Final, TypeAlias

import redis.asyncio as redis_asyncio
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from cluster_pool.backplane.names import Names, resolving
from cluster_pool.backplane.refusals import said, with_advice
from cluster_pool.backplane.urls import check_url, malformed, sentinels_of, shown_of
from cluster_pool.core.ids import exact, shown
from cluster_pool.core.keys import DEFAULT_PREFIX
from cluster_pool.exceptions import BackplaneUnavailableError, InvalidValueError

Raw = AbstractConnection

RedisOrUrl: TypeAlias = "str | redis_asyncio.Redis"
"""How users name a Redis: a URL, or a client of their own."""


class Address:
    """A Redis: its address, credentials and TLS, from a URL or from a user's own client.

    The client's time-outs, retries, decoding and protocol are ignored: a connection that
    reconnects or retries by itself could deliver a message twice.
    """

    def __init__(self, redis: RedisOrUrl, connect_timeout: float) -> None:
        pool = _pool_of(redis)
        self.shown = shown_of(pool)
        self._pool = pool  # connections that ask Sentinel have only a weak reference to it
        self._database = str(pool.connection_kwargs.get("db") or 0)
        self._timeout = connect_timeout
        self._names = Names()
        self._class: type[Raw] = resolving(pool.connection_class, self._names)
        self._sentinels = sentinels_of(pool)
        self._password = str(pool.connection_kwargs.get("password") or "")
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

        redis-py's connect time-out covers only the TCP handshake; here it covers the replies
        after it, too.

        Raises:
            BackplaneUnavailableError: the socket was not ready in time; the text names the address
                without its password.
        """
        connection = self._class(**self._settings)
        try:
            await self._reach(connection)
        except BaseException as error:
            await connection.disconnect(nowait=True)
            if isinstance(error, BackplaneUnavailableError) and self._is_quoted_by(error):
                text = str(error).replace(self._password, "***")
                raise BackplaneUnavailableError(text) from None
            raise
        return connection

    async def _reach(self, connection: Raw) -> None:
        try:
            await self._connect(connection)
        except FAULTS as error:
            raise unavailable(f"cannot reach Redis at {self.shown}", error) from error

    async def _connect(self, connection: Raw) -> None:
        try:
            async with asyncio.timeout(self._timeout):
                for host, port in self._sentinels:  # redis-py looks them up again, which is fast
                    with contextlib.suppress(OSError):
                        await self._names.addresses(host, port)
                await connection.connect()
        except TimeoutError:
            name = self._names.asking
            what = f"looking up the name {shown(name)}" if name else "connecting"
            raise TimeoutError(f"{what} takes longer than {self._timeout:g} s") from None

    def _is_quoted_by(self, error: BaseException | None) -> bool:
        """Whether the text of an error, or of one that caused it, contains the password.

        A Redis that does not know AUTH quotes its arguments. A password of up to three characters
        is not looked for: it may be part of any word.
        """
        while error is not None and len(self._password) > 3:
            if self._password in str(error):
                return True
            error = error.__cause__ or error.__context__
        return False


def _pool_of(redis: RedisOrUrl) -> redis_asyncio.ConnectionPool:
    """The connection pool of a URL or client; an InvalidValueError never has the password in it."""
    if isinstance(redis, str):
        redis = exact(redis)
        check_url(redis)
        try:
            pool = redis_asyncio.ConnectionPool.from_url(redis)
            pool.connection_class(**pool.connection_kwargs)  # refuses unknown options
        except (ValueError, TypeError, RedisError) as error:
            raise malformed(redis, error) from None
        return pool
    if isinstance(redis, redis_asyncio.Redis):
        return redis.connection_pool
    kind = f"{type(redis).__module__.partition('.')[0]}.{type(redis).__name__}"
    kind = kind.removeprefix("builtins.")
    raise InvalidValueError(f"redis must be a URL or a redis.asyncio.Redis, not {kind}")


FAULTS: Final = (RedisError, OSError, EOFError, RuntimeError)
"""Errors of redis-py and of sockets when a connection fails. uvloop raises RuntimeError for a write
to a socket that has just been reset."""


def unavailable(what: str, error: BaseException) -> BackplaneUnavailableError:
    """The error to raise for one of :data:`FAULTS`; ``what`` says what failed."""
    return BackplaneUnavailableError(f"{what}: {with_advice(said(error))}")
