"""The address of Redis, read from a URL or a client, and its current primary."""

import logging
from typing import Final, Protocol

from cluster_pool.backplane.endpoint import Endpoint
from cluster_pool.backplane.locations import RedisOrUrl, read_location
from cluster_pool.backplane.logins import Login, Raw
from cluster_pool.backplane.names import Names
from cluster_pool.backplane.sentinels import CONNECT, Sentinels
from cluster_pool.backplane.urls import Kind, Where
from cluster_pool.core.ids import shown
from cluster_pool.core.keys import DEFAULT_PREFIX
from cluster_pool.exceptions import InvalidValueError

log = logging.getLogger("cluster_pool.backplane")

ANNOUNCED: Final = (
    "others announce this address: if the server is alive, and has another address for this node, "
    "give that by address_remap="
)


class Primary(Protocol):
    """A server that was the primary when it was looked up; a generation uses one."""

    login: Login
    shown: str
    server: str
    """The name of the server among those that may follow each other; "" where it is the only one.
    """

    async def open(self) -> Raw:
        """A new connected socket; see :meth:`.Endpoint.open`."""

    async def watch(self, pause: float) -> None:
        """Check every ``pause`` seconds; raises when another server is the primary."""


class Primaries(Protocol):
    """Looks up the primary of one shard."""

    @property
    def shown(self) -> str:
        """The location without its password."""

    async def primary(self) -> Primary:
        """The current primary; raises BackplaneUnavailableError when none is found."""


class Address:
    """A Redis as a user gave it: one server, a primary under Sentinels, or a cluster.

    It has no sockets, and may be used in several event loops.
    """

    def __init__(self, redis: RedisOrUrl, connect_timeout: float) -> None:
        self._location = read_location(redis)
        self._timeout = connect_timeout
        self._names: dict[Where, Names] = {}
        self._named = ""
        """The primary that Sentinels have named last."""
        self.shown = self._location.shown
        """A URL, with *** for the password."""

    @property
    def kind(self) -> Kind:
        """One server, Sentinels, or a cluster."""
        return self._location.kind

    @property
    def seeds(self) -> list[Endpoint]:
        """The nodes of a cluster that were given, in that order; [] for any other kind."""
        return [self.at(where) for where in self._location.seeds]

    def at(self, where: Where) -> Endpoint:
        """The Redis at a host and port, with the given credentials and TLS."""
        return self._endpoint(self._location.login.at(where))

    def announced(self, where: Where) -> Endpoint:
        """The Redis that announces a host and port; ``address_remap`` is applied."""
        location = self._location
        return self._endpoint(location.login.at(location.remap(where)), hint=ANNOUNCED)

    async def primary(self) -> Primary:
        """The current primary; not for a cluster, which has several.

        Raises:
            BackplaneUnavailableError: no Sentinel names one.
        """
        location = self._location
        if location.kind == "single":
            return self._endpoint(location.login)
        asked = [self._sentinel(one) for one in location.sentinels]
        sentinels = Sentinels(self.shown, asked, location.service, location.min_sentinels)
        primary = await sentinels.primary(self.announced)
        if primary.shown != self._named:
            self._named = primary.shown
            log.info("the primary of %s is %s", shown(location.service), primary.shown)
        return primary

    def check_prefix(self, prefix: str) -> None:
        """Refuse the default prefix in a database other than 0.

        Channels belong to no database: two clusters on /1 and /2 with one prefix would hear each
        other, while each finds its own keys.
        """
        database = self._location.login.database
        if database != "0" and prefix == DEFAULT_PREFIX:
            raise InvalidValueError(
                f"{shown(self.shown, 200)} names database {shown(database)}, and channels "
                "belong to no database: clusters with one prefix would hear each other. Use "
                "database 0, or give each cluster a prefix of its own: prefix= (--prefix)"
            )

    def _sentinel(self, login: Login) -> Endpoint:
        names = self._names.setdefault(login.where, Names())
        return Endpoint(login, names, self._timeout, "the Sentinel").within(CONNECT)

    def _endpoint(self, login: Login, hint: str = "") -> Endpoint:
        names = self._names.setdefault(login.where, Names())
        return Endpoint(login, names, self._timeout, hint=hint)
