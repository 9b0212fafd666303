"""The class and the settings of redis-py with which sockets to a Redis or a Sentinel are made.

A user's time-outs, retries, decoding and protocol are ignored: a socket that reconnects or retries
by itself could deliver a message twice.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import redis.asyncio as redis_asyncio
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from cluster_pool.backplane.tls import unplaced
from cluster_pool.backplane.urls import Where, joined
from cluster_pool.core.ids import shown
from cluster_pool.exceptions import InvalidValueError

Raw = AbstractConnection

_FILES: Final = ("ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile")
_SECRETS: Final = ("password", "ssl_password")
_OF_POOLS: Final = frozenset(
    ("connection_pool", "max_connections", "connection_class", "response_callbacks")
)
"""Settings of pools and cluster nodes, which redis-py keeps among those of sockets."""

_UNUSABLE: Final = {
    "KEY_VALUES_MISMATCH": "ssl_keyfile is not the key of ssl_certfile",
    "NO_CERTIFICATE_OR_CRL_FOUND": "ssl_ca_certs has no certificate",
    "NO_START_LINE": "ssl_certfile, ssl_keyfile or ssl_ca_data is not in PEM format",
}
"""OpenSSL's reasons, in the words of our options."""


@dataclass(frozen=True)
class Login:
    """A class of sockets and their settings: address, credentials, TLS, database."""

    kind: type[Raw]
    settings: Mapping[str, Any]

    def at(self, where: Where) -> "Login":
        """The same login at another host and port."""
        host, port = where
        return Login(self.kind, {**self.settings, "host": host, "port": port})

    @property
    def where(self) -> Where:
        """Host and port; those of redis-py's defaults for a unix socket."""
        settings = self.settings
        return str(settings.get("host") or "localhost"), int(settings.get("port") or 6379)

    @property
    def tls(self) -> bool:
        """Whether its sockets speak TLS."""
        return issubclass(self.kind, redis_asyncio.SSLConnection)

    @property
    def scheme(self) -> str:
        """The scheme of its URL, if it connects by TCP."""
        return "rediss" if self.tls else "redis"

    @property
    def user(self) -> str:
        """The part before the host. A user name alone is hidden: it may be a misplaced password."""
        user, password = self.settings.get("username"), self.settings.get("password")
        if user and password:
            return f"{quote(str(user))}:***@"
        return ":***@" if password else "***@" if user else ""

    @property
    def database(self) -> str:
        """The number of the database."""
        return str(self.settings.get("db") or 0)

    @property
    def secrets(self) -> list[str]:
        """The passwords, which must not be shown."""
        return [str(self.settings[name]) for name in _SECRETS if self.settings.get(name)]

    @property
    def shown(self) -> str:
        """Its URL, with *** for the password."""
        if self.kind.__module__.partition(".")[0] == "fakeredis":
            return "fakeredis"
        if issubclass(self.kind, redis_asyncio.UnixDomainSocketConnection):
            database = "" if self.database == "0" else f"?db={self.database}"
            return f"unix://{self.user}{self.settings.get('path', '')}{database}"
        return f"{self.scheme}://{self.user}{joined(self.where)}/{self.database}"

    def make(self, connect_timeout: float, kind: type[Raw] | None = None) -> Raw:
        """A new socket, not connected."""
        settings = {name: value for name, value in self.settings.items() if name not in _OF_POOLS}
        if self.tls:  # without it OpenSSL asks at the terminal
            settings["ssl_password"] = settings.get("ssl_password") or ""
        return (kind or self.kind)(
            **{
                **settings,
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
        )

    def check(self) -> None:
        """Refuse options with which no socket can be made.

        Raises:
            InvalidValueError: for files of TLS that cannot be read, or do not belong together.
            TypeError, ValueError, RedisError: redis-py does not know an option or its value.
        """
        made = self.make(1.0)
        for name in _FILES if self.tls else ():
            path = self.settings.get(name)
            if path and not os.access(path, os.R_OK):
                raise InvalidValueError(f"{name}: {shown(str(path), 200)} cannot be read")
        try:
            if isinstance(made, redis_asyncio.SSLConnection):
                made.ssl_context.get()
        except (OSError, ValueError) as error:  # an SSLError is an OSError
            what = self._unusable(error)
            raise InvalidValueError(f"its TLS options cannot be used: {what}") from None

    def _unusable(self, error: Exception) -> str:
        """Why a TLS context cannot be made."""
        reason = getattr(error, "reason", None) or unplaced(str(error))
        key = self.settings.get("ssl_keyfile") or self.settings.get("ssl_certfile")
        if key and b"ENCRYPTED" in Path(key).read_bytes():
            return "ssl_keyfile is encrypted, and ssl_password= is missing or does not fit"
        return _UNUSABLE.get(str(reason), str(reason))


def of_pool(pool: Any) -> Login:
    """The login of a client's pool."""
    return Login(pool.connection_class, pool.connection_kwargs)
