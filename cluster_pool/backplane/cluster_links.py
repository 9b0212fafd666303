"""The links to all shards of a cluster, as one object for operations."""

import asyncio
from typing import Any

from cluster_pool.backplane.command_connection import Argument, ScriptCall
from cluster_pool.backplane.generation import Generation
from cluster_pool.backplane.shard import Shard
from cluster_pool.backplane.topology import Commands, Topology


class ClusterLinks:
    """See :class:`.Links`: home's link of one generation, and those that the other shards have now.

    Args:
        home: what goes to home goes over this generation, or not at all.
    """

    __slots__ = ("_home", "_topology")

    def __init__(self, topology: Topology, home: Generation) -> None:
        self._topology = topology
        self._home = home

    def commands(self, key: str) -> Commands:
        """See :meth:`.Links.commands`."""
        shard = self._topology.of(key)
        if shard is self._topology.home:
            return self._home.commands(key)
        return shard.commands or NoLink(shard)

    def script(self, call: ScriptCall) -> asyncio.Future[Any]:
        """See :meth:`.Links.script`."""
        return self.commands(call.keys[0]).script(call)


class NoLink:
    """Takes commands to a shard to which there is no link; each of them fails at once."""

    __slots__ = ("_shard",)

    def __init__(self, shard: Shard) -> None:
        self._shard = shard

    def call(self, *arguments: Argument) -> asyncio.Future[Any]:
        """A future with BackplaneUnavailableError, which says why there is none."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        future.set_exception(self._shard.generations.unavailable())
        future.exception()  # taken note of, also when nobody waits for it
        return future

    def script(self, call: ScriptCall) -> asyncio.Future[Any]:
        """See :meth:`call`."""
        return self.call()
