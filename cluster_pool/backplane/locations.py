"""Reads how a user names a Redis: a URL, or a client of redis-py."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias
from urllib.parse import quote

import redis.asyncio as redis_asyncio
from redis.exceptions import RedisError

from cluster_pool.backplane.logins import Login, of_pool
from cluster_pool.backplane.remap import Remap, read_remap, unchanged
from cluster_pool.backplane.urls import Kind, Url, Where, joined, malformed, read_url
from cluster_pool.core.ids import exact
from cluster_pool.exceptions import InvalidValueError

RedisOrUrl: TypeAlias = "str | redis_asyncio.Redis | redis_asyncio.RedisCluster"
"""How users name a Redis: a URL, or a client, of which address, credentials and TLS are used."""

_OF_CLUSTERS: Final = frozenset(("himport_registry", "redis_connect_func"))
"""Settings that a cluster client adds for itself."""


@dataclass(frozen=True)
class Location:
    """Where a Redis is.

    Attributes:
        login: for Redis; has the address only for one server.
        sentinels: a login for each Sentinel that knows ``service``.
        seeds: nodes of a cluster.
        remap: maps announced addresses to reachable ones.
        min_sentinels: other Sentinels that a Sentinel must see for its answer to count.
    """

    kind: Kind
    login: Login
    sentinels: tuple[Login, ...] = ()
    service: str = ""
    seeds: tuple[Where, ...] = ()
    remap: Remap = unchanged
    min_sentinels: int = 0

    @property
    def shown(self) -> str:
        """As a URL, with *** for its password."""
        login = self.login
        if self.kind == "single":
            return login.shown
        hosts = self.seeds or [one.where for one in self.sentinels]
        where = f"{login.scheme}+{self.kind}://{login.user}{','.join(map(joined, hosts))}"
        return where if self.seeds else f"{where}/{quote(self.service)}/{login.database}"


def read_location(redis: RedisOrUrl) -> Location:
    """Read a URL or a client; an InvalidValueError never has the password in it."""
    if isinstance(redis, str):
        return _of_url(exact(redis))
    if isinstance(redis, redis_asyncio.Redis):
        pool: Any = redis.connection_pool
        location = _of_sentinel(pool) if hasattr(pool, "sentinel_manager") else _of_single(pool)
    elif isinstance(redis, redis_asyncio.RedisCluster):
        location = _of_cluster(redis)
    else:
        kind = f"{type(redis).__module__.partition('.')[0]}.{type(redis).__name__}"
        kind = kind.removeprefix("builtins.")
        raise InvalidValueError(
            "redis must be a URL, a redis.asyncio.Redis (also Sentinel's master_for), or a "
            f"redis.asyncio.RedisCluster, not {kind}"
        )
    location.login.check()
    return location


# -- URLs --------------------------------------------------------------------------------------


def _of_url(text: str) -> Location:
    url = read_url(text)
    try:
        pool = redis_asyncio.ConnectionPool.from_url(url.base)
        login = of_pool(pool)
        if login.database != "0" and url.kind == "cluster":
            raise ValueError("a cluster has no databases: leave its number out")
        login.check()
    except (ValueError, TypeError, RedisError) as error:
        if isinstance(error, InvalidValueError):
            raise
        raise malformed(text, _said(error, url)) from None
    if url.kind == "single":
        return Location("single", login)
    remap = url.options.get("address_remap")
    read = unchanged if remap is None else read_remap(remap)
    if url.kind == "cluster":
        return Location("cluster", login, seeds=url.hosts, remap=read)
    asked = Login(login.kind, _of_sentinels(login.settings, url.options))
    sentinels = tuple(asked.at(host) for host in url.hosts)
    return Location("sentinel", login, sentinels, url.service, remap=read)


def _of_sentinels(settings: Mapping[str, Any], options: Mapping[str, str]) -> dict[str, Any]:
    """The settings of sockets to Sentinels: the TLS of Redis, and credentials of their own."""
    own = {"username": "sentinel_username", "password": "sentinel_password"}
    kept = {name: value for name, value in settings.items() if name not in (*own, "db")}
    return kept | {name: options[option] for name, option in own.items() if options.get(option)}


def _said(error: Exception, url: Url) -> str:
    """The text of redis-py's error for a URL, without words of Python."""
    _, unknown, option = str(error).partition("unexpected keyword argument ")
    if not unknown:
        return str(error)
    if option.strip("'").startswith("ssl_") and not url.base.startswith("rediss"):
        return f"{option} is for TLS, which begins with rediss"
    return f"there is no option {option}"


# -- clients -----------------------------------------------------------------------------------


def _of_single(pool: Any) -> Location:
    return Location("single", of_pool(pool))


def _of_sentinel(pool: Any) -> Location:
    if not pool.is_master:
        raise InvalidValueError("this client is for replicas: give master_for(…), not slave_for(…)")
    manager = pool.sentinel_manager
    tls = issubclass(pool.connection_class, redis_asyncio.SSLConnection)
    kind = redis_asyncio.SSLConnection if tls else redis_asyncio.Connection
    sentinels = [of_pool(one.connection_pool) for one in manager.sentinels]
    return Location(
        "sentinel",
        Login(kind, pool.connection_kwargs),
        tuple(one.at((one.where[0], int(one.settings.get("port") or 26379))) for one in sentinels),
        str(pool.service_name),
        remap=_forced(getattr(manager, "_force_master_ip", None)),
        min_sentinels=manager.min_other_sentinels,
    )


def _forced(host: str | None) -> Remap:
    """The mapping of ``force_master_ip``, an option of redis-py's Sentinel."""
    return unchanged if host is None else lambda where: (host, where[1])


def _of_cluster(client: Any) -> Location:
    settings = client.connection_kwargs
    kept = {name: value for name, value in settings.items() if name not in _OF_CLUSTERS}
    remap: Remap | None = client.nodes_manager.address_remap
    return Location(
        "cluster",
        Login(settings["connection_class"], kept),
        seeds=tuple((str(node.host), int(node.port)) for node in client.startup_nodes),
        remap=remap or unchanged,
    )
