"""The drain budget in Redis: leases on shares of the cluster's closes per second, a call each."""

import asyncio
from math import inf
from typing import Final

from cluster_pool.backplane import script_calls
from cluster_pool.backplane.calls import deadline_in, in_time, pairs, texts, unheeded
from cluster_pool.backplane.command_connection import ScriptCall
from cluster_pool.backplane.script_words import KNOWN
from cluster_pool.backplane.shard import Shard
from cluster_pool.core.drain_budget import Ask, Grant
from cluster_pool.core.keys import Keys
from cluster_pool.core.results import DrainProgress

LONGEST: Final = 1e9
"""The longest time to a deadline in seconds that Redis is told; a longer one has too many digits
and changes nothing."""


class RedisDrainBudget:
    """The drain budget as one node or publisher uses it."""

    def __init__(self, shard: Shard, keys: Keys) -> None:
        self._shard = shard
        self._keys = keys

    async def lease(self, incarnation: str, ask: Ask, timeout: float) -> Grant:
        """Ask for a share. Redis grants it by its own time; no node's clock matters.

        Raises:
            BackplaneUnavailableError: Redis did not answer within ``timeout`` seconds.
        """
        deadline = deadline_in(timeout)
        reply = in_time(await self._shard.script(deadline, self._call(incarnation, ask, deadline)))
        rate, budget, needed, renew, ttl, *counts, deserted = map(float, reply[1:])
        drainers, living, acceptors = map(int, counts)
        return Grant(
            rate,
            budget,
            needed,
            renew / 1000,
            ttl / 1000,
            drainers,
            living,
            acceptors,
            deserted == 1,
        )

    def give_back(self, incarnation: str, node: str, timeout: float) -> None:
        """Give the share back, without waiting; if Redis is away, it expires by itself."""
        generation = self._shard.current
        if generation is not None:
            deadline = deadline_in(timeout)
            call = self._call(incarnation, Ask(node, "done", 0, 0), deadline)
            generation.script(call).add_done_callback(unheeded)

    def _call(self, incarnation: str, ask: Ask, deadline: float) -> ScriptCall:
        time_left = min(ask.time_left, LONGEST)
        return script_calls.drain(
            self._keys,
            not_after=self._shard.clock.at(deadline),
            node=ask.node,
            own=incarnation,
            state=ask.state,
            remaining=ask.remaining,
            total=ask.total,
            time_left=-1 if ask.time_left == inf else int(time_left * 1000),
            max_rate="" if ask.max_rate == inf else f"{ask.max_rate:.4f}",
            spent=f"{ask.rate:.4f}",
            known=KNOWN if ask.known else "",
            closable=f"{ask.closable:.4f}",
        )

    async def progress(self, deadline: float) -> list[DrainProgress]:
        """The drainers that hold a lease, as of their last renewal."""
        found: list[bytes] = await self._shard.call(deadline, "HGETALL", self._keys.drains)
        now = self._shard.clock.at(asyncio.get_running_loop().time()) / 1000
        drains = [_read(node, value.split(" "), now) for node, value in pairs(found).items()]
        return sorted((one for one in drains if one is not None), key=lambda drain: drain.node)

    async def acceptors(self, deadline: float) -> set[str]:
        """The living incarnations that accept newcomers."""
        now = self._shard.clock.at(asyncio.get_running_loop().time()) // 1000
        living = await self._shard.call(
            deadline, "ZRANGEBYSCORE", self._keys.leases, f"({now}", "+inf"
        )
        accepting = await self._shard.call(deadline, "HKEYS", self._keys.headrooms)
        return set(texts(set(living) & set(accepting)))

    async def budget(self, deadline: float) -> float | None:
        """Closes per second that the cluster allows, None when that is not set."""
        value = await self._shard.call(deadline, "GET", self._keys.budget)
        try:
            return None if value is None else float(value)
        except ValueError:  # not a number: it limits nothing, in the script of drains neither
            return None

    async def set_budget(self, rate: float | None, deadline: float) -> None:
        """Set it; None removes it, so that the headroom of the acceptors is the limit."""
        if rate is None:
            await self._shard.call(deadline, "DEL", self._keys.budget)
        else:
            await self._shard.call(deadline, "SET", self._keys.budget, repr(rate))


def _read(node: str, fields: list[str], now: float) -> DrainProgress | None:
    """An entry that has not expired; None for others, and for what no drainer has written."""
    try:
        state, remaining, rate, deadline, _, _, expiry, _, total = fields
        if float(expiry) <= now:
            return None
        left = None if deadline == "-" else max(0.0, float(deadline) - now) / 1000
        return DrainProgress(node, state, int(remaining), int(total), float(rate), left)
    except ValueError:
        return None
