"""Removes what dead incarnations left behind, in steps so short that Redis serves others between.

The scripts decide which incarnations are dead, and the callers when to look.
"""

import asyncio
from collections.abc import Sequence
from typing import Final

from cluster_pool.backplane import script_calls
from cluster_pool.backplane.calls import deadline_in, pairs, texts, unheeded
from cluster_pool.backplane.claims import BATCH
from cluster_pool.backplane.script_words import ALL, COUNTED
from cluster_pool.backplane.topology import Topology
from cluster_pool.backplane.upkeep import Holding, Upkeep
from cluster_pool.core.identity import Identity
from cluster_pool.core.keys import Keys

BEGIN: Final = (b"0",) * 4
"""The cursors of the first sweep."""
REAPED: Final = 125
"""Members per step. It occupies Redis for a millisecond, in which every other client waits."""


class Reaping:
    """The entries of dead incarnations: finds and removes them."""

    def __init__(self, topology: Topology, keys: Keys, identity: Identity, upkeep: Upkeep) -> None:
        self._topology = topology
        self._keys = keys
        self._identity = identity
        self._upkeep = upkeep

    async def sweep(
        self, lease: float, cursors: Sequence[bytes], deadline: float
    ) -> tuple[list[bytes], list[str]]:
        """Cut leases that end too far ahead, and look for incarnations without any.

        Args:
            lease: seconds that the lease of an unknown node lasts, at most.
            cursors: where to go on: those that the last call returned, or :data:`BEGIN`.

        Returns:
            The next cursors, and incarnations that have no lease and are not being reaped.
        """
        call = script_calls.sweep(self._keys, ttl_ms=int(lease * 1000), most=BATCH, cursors=cursors)
        reply = await self._topology.home.script(deadline, call)
        return reply[0], texts(reply[1])

    async def dead(self, deadline: float) -> dict[str, str]:
        """Incarnations that wait to be reaped, with their node ids."""
        return pairs(await self._topology.home.call(deadline, "HGETALL", self._keys.dead))

    async def reachable(self, namespaces: Sequence[str]) -> list[str]:
        """The namespaces whose shard is up, as :meth:`.Topology.in_calls` has them; all of them
        with one Redis."""
        if not self._topology.spans:
            return list(namespaces)
        shards = await self._topology.by_shard(namespaces)
        return [name for shard, names in shards.items() if shard.up for name in names]

    async def left_by(
        self, incarnation: str, namespaces: Sequence[str], deadline: float
    ) -> list[str]:
        """The namespaces in which an incarnation may have members: it has a count there, or the
        counts are wrong."""
        links = await self._topology.connected(deadline)
        holdings = [Holding(namespace, 0, 0, ()) for namespace in namespaces]
        calls = [
            self._upkeep.compare(links, incarnation, holdings[at : at + BATCH], deadline)
            for at in range(0, len(holdings), BATCH)
        ]
        return [name for differing, _ in await asyncio.gather(*calls) for name in differing]

    async def clear(
        self,
        namespace: str,
        incarnation: str,
        node_id: str,
        timeout: float,
        *,
        counted: bool,
        lives_on: bool = False,
    ) -> tuple[int, bool]:
        """Remove an incarnation's members from a namespace; how many, and if that emptied it.

        It goes in steps of at most ``timeout`` seconds each. A retry after a lost reply tells
        again if the namespace was emptied: Redis keeps that until the reply has come.

        Args:
            counted: whether its count there is trusted; else every member is looked at.
            lives_on: whether its node has another incarnation, and a release of a claim of this one
                is perhaps still on its way, which is answered as if it had come first.
        """
        cursor, total, empty = "0", 0, False
        while True:
            deadline = deadline_in(timeout)
            cursor, gone, emptied = await self._reap(
                namespace, incarnation, node_id, cursor, deadline, counted, lives_on
            )
            total, empty = total + gone, empty or emptied
            if not cursor:
                break
        if empty:
            key = self._keys.emptied(namespace)
            commands = (await self._topology.connected(deadline)).commands(key)
            commands.call("HDEL", key, self._removal(incarnation)).add_done_callback(unheeded)
        return total, empty

    def _removal(self, incarnation: str) -> str:
        """The name of this process's removal of an incarnation's members."""
        return f"{incarnation}@{self._identity.start}"

    async def _reap(
        self,
        namespace: str,
        incarnation: str,
        node_id: str,
        cursor: str,
        deadline: float,
        counted: bool,
        lives_on: bool,
    ) -> tuple[str, int, bool]:
        """One step; gives the next cursor ("" at the end), how many it removed, if it is empty."""
        call = script_calls.reap(
            self._keys,
            namespace,
            incarnation=incarnation,
            node=node_id,
            cursor=cursor,
            most=REAPED,
            extent=COUNTED if counted else ALL,
            removal=self._removal(incarnation),
            lives_on="1" if lives_on else "",
        )
        reply = await self._topology.script(deadline, call)
        return reply[0].decode(), reply[1], bool(reply[2])

    async def forget(self, incarnation: str, deadline: float) -> None:
        """Remove the last entries of an incarnation that has been reaped."""
        keys, home = self._keys, self._topology.home
        await home.call(deadline, "DEL", keys.namespaces(incarnation))
        await home.call(deadline, "HDEL", keys.incarnations, incarnation)
        await home.call(deadline, "HDEL", keys.dead, incarnation)
