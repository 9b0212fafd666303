"""The places of a cluster's primaries, one for each shard, and the channels for its probes.

A shard is a primary with its replicas: a failover ends a generation of the shard, and the next one
lives on another host. Home is the slot of leases, nodes and drains, wherever that is; it has links
of its own, also to a primary that has other slots.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from redis.exceptions import ResponseError

from cluster_pool.backplane.address import Address, Primary
from cluster_pool.backplane.cluster_map import ClusterMap
from cluster_pool.backplane.command_connection import CommandConnection
from cluster_pool.backplane.endpoint import open_unless
from cluster_pool.backplane.logins import Raw
from cluster_pool.backplane.scripts import digest
from cluster_pool.backplane.slots import HOME_SLOT, SLOTS, Group, slot_of, tag_of_one
from cluster_pool.backplane.urls import Where, joined
from cluster_pool.core.identity import Identity
from cluster_pool.core.keys import Keys
from cluster_pool.exceptions import BackplaneUnavailableError

WHILE_OPENING: Final = 0.5
"""Seconds between two looks at the map while a primary lets nobody in."""
NOBODY: Final = "no node of the cluster has slot %d"


class MappedPrimary:
    """A primary by the map, which may name another one while this is opened; see :class:`.Primary`.

    Args:
        server: its name in the cluster.
        where: its announced address.
        now: gives the address of the primary by the present map.
        read: reads the map.
    """

    def __init__(
        self,
        endpoint: Primary,
        server: str,
        where: Where,
        now: Callable[[], Where | None],
        read: Callable[[], Awaitable[None]],
    ) -> None:
        self.login, self.shown = endpoint.login, endpoint.shown
        self.watch = endpoint.watch
        self.server = server
        self._endpoint = endpoint
        self._where = where
        self._now = now
        self._read = read

    async def open(self) -> Raw:
        """As :meth:`.Endpoint.open`, but raise once the map names another primary.

        A frozen primary accepts sockets and never answers.
        """
        return await open_unless(self._endpoint.open(), self._look())

    async def _look(self) -> None:
        """Read the map again and again; ends with an error when it names another primary."""
        while True:
            await asyncio.sleep(WHILE_OPENING)
            await self._read()
            now = self._now()
            if now not in (None, self._where):
                raise BackplaneUnavailableError(moved_to(now))


class HomePlace:
    """Looks up the primary of home's slot."""

    def __init__(self, address: Address, map: ClusterMap) -> None:
        self.shown = address.shown
        self.at: Where | None = None
        """The place when it was last asked for."""
        self._address = address
        self._map = map

    async def primary(self) -> Primary:
        """The present primary; see :meth:`.Primaries.primary`."""
        await self._read()
        group = self._group()
        self.at = self.now()
        if group is None or self.at is None:
            raise BackplaneUnavailableError(NOBODY % HOME_SLOT)
        endpoint = self._address.announced(self.at)
        return MappedPrimary(endpoint, group.ids[0], self.at, self.now, self._read)

    def now(self) -> Where | None:
        """The place by the present map; None when no node has the slot."""
        group = self._group()
        return None if group is None else group.primary

    def _group(self) -> Group | None:
        return next((one for one in self._map.groups if HOME_SLOT in one), None)

    async def _read(self) -> None:
        group = self._group()
        await _read_again(self._map, () if group is None else group.ids)


class ClusterPart:
    """Looks up the primary of one group of nodes; see also :class:`.Part`.

    Attributes:
        group: as the map has it now.
    """

    def __init__(
        self, address: Address, map: ClusterMap, keys: Keys, identity: Identity, group: Group
    ) -> None:
        self.group = group
        self.at: Where | None = None
        """The place of the primary when it was last asked for."""
        self._address = address
        self._map = map
        self._keys = keys
        self._identity = identity
        self._tag = tag_of_one(group.slots)
        self._server = ""
        """The name of the primary in the cluster when it was last asked for."""
        self._marked = ""
        """The server where this start has left its mark."""

    @property
    def shown(self) -> str:
        """The address of its primary, without a password."""
        return self._address.announced(self.group.primary).shown

    async def primary(self) -> Primary:
        """The present primary; see :meth:`.Primaries.primary`."""
        await self._read()
        self.at, self._server = self.group.primary, self.group.ids[0]
        endpoint = self._address.announced(self.at)
        return MappedPrimary(
            endpoint, self._server, self.at, lambda: self.group.primary, self._read
        )

    async def _read(self) -> None:
        await _read_again(self._map, self.group.ids)

    def probe_channel(self) -> str:
        """See :meth:`.Part.probe_channel`."""
        if slot_of(self._tag) not in self.group:
            self._tag = tag_of_one(self.group.slots)
        return self._keys.probe_channel(self._tag, self._identity.start)

    def avoid(self, channel: str) -> None:
        """See :meth:`.Part.avoid`. A move may stop half way, and last for hours."""
        avoided = slot_of(channel)
        others = [slot for slot in self.group.slots if slot != avoided]
        if others and slot_of(self._tag) == avoided:
            self._tag = tag_of_one(others)

    async def state_lost(self, commands: CommandConnection) -> bool:
        """See :meth:`.Part.state_lost`.

        This start leaves a script there, which no restart survives. Nothing is known of a server
        that has taken over. One that was restarted at another address has the same name.
        """
        before, self._marked = self._marked, self._server
        mark = f"return '{self._identity.start}'"
        try:
            known = (await commands.call("SCRIPT", "EXISTS", digest(mark)))[0]
            if not known:
                await commands.call("SCRIPT", "LOAD", mark)
        except ResponseError:  # not allowed: nothing says that it is the same
            known = 0
        return before == self._server and not known


class Nowhere:
    """The place of slots without a node: every attempt to connect fails with the reason."""

    shown = "no node"

    def __init__(self, map: ClusterMap) -> None:
        self._map = map

    async def primary(self) -> Primary:
        """Raises BackplaneUnavailableError."""
        await _read_again(self._map, ())
        free = SLOTS - sum(
            last - first + 1 for one in self._map.groups for first, last in one.ranges
        )
        raise BackplaneUnavailableError(
            f"{free} slots of the cluster belong to no node: `redis-cli --cluster fix` mends that"
        )


async def _read_again(map: ClusterMap, doubted: Sequence[str]) -> None:
    """Read the map anew; if that fails, the known one is used."""
    try:
        await map.fresh(doubted)
    except BackplaneUnavailableError:
        if not map.groups:
            raise


def moved_to(where: Where | None) -> str:
    """The reason for the end of a generation whose primary has moved."""
    return f"the primary is at {joined(where) if where else 'no known place'} now"
