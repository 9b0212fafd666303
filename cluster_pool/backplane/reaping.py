"""Removing what dead incarnations left behind, in steps that keep nobody waiting for long.

Which incarnations are dead is decided by the scripts, and when to look by the callers.
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
"""Members to one step, which keeps everybody else waiting for a millisecond."""


class Reaping:
    """What is registered of the dead, as whoever removes it sees it."""

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
            lease: seconds that one lasts whose node nobody knows.
            cursors: where to go on: what the last call gave, or :data:`BEGIN`.

        Returns:
            The next cursors, and incarnations that have neither a lease nor anybody to reap them.
        """
        call = script_calls.sweep(self._keys, ttl_ms=int(lease * 1000), most=BATCH, cursors=cursors)
        reply = await self._topology.home.script(deadline, call)
        return reply[0], texts(reply[1])

    async def dead(self, deadline: float) -> dict[str, str]:
        """Incarnations that wait for being reaped, with their node ids."""
        return pairs(await self._topology.home.call(deadline, "HGETALL", self._keys.dead))

    async def left_by(
        self, incarnation: str, namespaces: Sequence[str], deadline: float
    ) -> list[str]:
        """Those in which an incarnation may have members: by its count, or as no count is right."""
        generation = await self._topology.connected(deadline)
        holdings = [Holding(namespace, 0, 0, ()) for namespace in namespaces]
        calls = [
            self._upkeep.compare(generation, incarnation, holdings[at : at + BATCH], deadline)
            for at in range(0, len(holdings), BATCH)
        ]
        return [name for differing, _ in await asyncio.gather(*calls) for name in differing]

    async def clear(
        self, namespace: str, incarnation: str, node_id: str, timeout: float, *, counted: bool
    ) -> tuple[int, bool]:
        """Remove an incarnation's members from a namespace; how many, and if that emptied it.

        In steps, for each of which ``timeout`` seconds are waited. A retry after a lost answer
        tells again if it emptied it: Redis remembers it until the answer has come.

        Args:
            counted: its count there can be believed; else every member is looked at.
        """
        cursor, total, empty = "0", 0, False
        while True:
            deadline = deadline_in(timeout)
            cursor, gone, emptied = await self._reap(
                namespace, incarnation, node_id, cursor, deadline, counted
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
        """What this process calls its removal of an incarnation's members."""
        return f"{incarnation}@{self._identity.start}"

    async def _reap(
        self,
        namespace: str,
        incarnation: str,
        node_id: str,
        cursor: str,
        deadline: float,
        counted: bool,
    ) -> tuple[str, int, bool]:
        """One step; gives the next cursor ("" at the end), how many went, and if it is empty."""
        call = script_calls.reap(
            self._keys,
            namespace,
            incarnation=incarnation,
            node=node_id,
            cursor=cursor,
            most=REAPED,
            extent=COUNTED if counted else ALL,
            removal=self._removal(incarnation),
        )
        reply = await self._topology.of(namespace).script(deadline, call)
        return reply[0].decode(), reply[1], bool(reply[2])

    async def forget(self, incarnation: str, deadline: float) -> None:
        """An incarnation has been reaped: remove the last that is known of it."""
        keys, home = self._keys, self._topology.home
        await home.call(deadline, "DEL", keys.namespaces(incarnation))
        await home.call(deadline, "HDEL", keys.incarnations, incarnation)
        await home.call(deadline, "HDEL", keys.dead, incarnation)
