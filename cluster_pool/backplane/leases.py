"""Leases in Redis: taking, renewing and ending them, and which nodes hold one.

The scripts and the callers decide; nothing here does.
"""

import asyncio
from dataclasses import dataclass
from typing import Literal

from cluster_pool.backplane import script_calls
from cluster_pool.backplane.calls import pairs, text_of, texts
from cluster_pool.backplane.lease_view import LeaseView
from cluster_pool.backplane.script_words import OK, TAKEN
from cluster_pool.backplane.shard import Shard
from cluster_pool.core.identity import Identity
from cluster_pool.core.keys import Keys


@dataclass(frozen=True, slots=True)
class LeaseReply:
    """The reply of Redis to a join or a heartbeat.

    Attributes:
        held: False when the lease belongs to another (join) or is gone (heartbeat).
        epoch: the state of Redis that this lease belongs to.
        ends: Redis time in ms at which the other's lease ends.
        holder: the other's incarnation.
        living: how many nodes hold a lease.
    """

    held: bool
    epoch: str = ""
    ends: float = 0.0
    living: int = 1
    holder: str = ""


class Leases:
    """The leases of a cluster as one node, or a publisher, sees them."""

    def __init__(self, shard: Shard, keys: Keys, identity: Identity, view: LeaseView) -> None:
        self._shard = shard
        self._keys = keys
        self._identity = identity
        self._view = view

    async def join(
        self,
        incarnation: str,
        ttl: float,
        info: str,
        headroom: str,
        epoch: str,
        deadline: float,
        *,
        instead_of: str = "",
    ) -> LeaseReply:
        """Take a lease for a new incarnation of this node.

        ``headroom``: connections per second that it can accept, "" when it accepts none.
        ``epoch``: the epoch for a Redis that has none; "" for its time. ``instead_of``: an
        incarnation of another start with this node id, whose lease ends with this call.
        """
        call = script_calls.join(
            self._keys,
            node=self._identity.node_id,
            start=self._identity.start,
            incarnation=incarnation,
            ttl_ms=int(ttl * 1000),
            info=info,
            headroom=headroom,
            new_epoch=epoch,
            instead_of=instead_of,
        )
        reply = await self._shard.script(deadline, call)
        if reply[0] == TAKEN.encode():
            return LeaseReply(False, ends=float(reply[1]), holder=text_of(reply[2]) or "")
        self._view.read(*reply[2])
        return LeaseReply(True, reply[1].decode(), living=self._view.living)

    async def heartbeat(
        self, incarnation: str, ttl: float, info: str, headroom: str, epoch: str, deadline: float
    ) -> LeaseReply:
        """Renew the lease of this node's incarnation, unless it is over; as :meth:`join`. The lease
        view is read with it.

        Its other entries, and the ``epoch``, are written again if they were lost.
        """
        call = script_calls.heartbeat(
            self._keys,
            node=self._identity.node_id,
            incarnation=incarnation,
            ttl_ms=int(ttl * 1000),
            info=info,
            headroom=headroom,
            lease_epoch=epoch,
        )
        commands = (await self._shard.connected(deadline)).commands(self._keys.leases)
        async with self._shard.generations.ending_at(deadline, maybe_executed=True):
            renewed, _ = await asyncio.gather(commands.script(call), self._view.refresh(commands))
        if renewed[0] != OK.encode():
            return LeaseReply(False)
        return LeaseReply(True, renewed[1].decode(), living=self._view.living)

    async def bury(
        self, incarnation: str, deadline: float, why: Literal["own", "expired", "orphan"]
    ) -> bool:
        """End an incarnation for good; False when its lease goes on.

        Args:
            why: ``"own"``, its node gives it up; ``"expired"``, its lease must be over;
                ``"orphan"``, it has none, but something else is registered of it.
        """
        call = script_calls.bury(self._keys, incarnation=incarnation, why=why)
        return bool(await self._shard.script(deadline, call))

    # -- reading ---------------------------------------------------------------------------

    async def held(self, deadline: float) -> set[str]:
        """Incarnations that hold a lease, in one round trip."""
        return set(texts(await self._holders(deadline)))

    async def has(self, incarnation: str, deadline: float) -> bool:
        """Whether Redis knows the lease of an incarnation, which may be over."""
        score = await self._shard.call(deadline, "ZSCORE", self._keys.leases, incarnation)
        return score is not None

    async def _holders(self, deadline: float) -> list[bytes]:
        now = self._shard.clock.at(asyncio.get_running_loop().time()) // 1000
        names: list[bytes] = await self._shard.call(
            deadline, "ZRANGEBYSCORE", self._keys.leases, f"({now}", "+inf"
        )
        return names

    async def living(self, deadline: float) -> dict[str, str]:
        """Incarnations that hold a lease, with their node ids."""
        names = await self._holders(deadline)
        if not names:
            return {}
        nodes = await self._shard.call(deadline, "HMGET", self._keys.incarnations, *names)
        return pairs(part for pair in zip(names, nodes, strict=True) for part in pair)

    async def infos(self, deadline: float) -> dict[str, tuple[str, str, float]]:
        """Living incarnations with node id, info as JSON, and seconds left of the lease."""
        living = await self.living(deadline)
        if not living:
            return {}
        infos = await self._shard.call(deadline, "HMGET", self._keys.infos, *living)
        ends = await self._shard.call(deadline, "ZMSCORE", self._keys.leases, *living)
        now = self._shard.clock.at(asyncio.get_running_loop().time()) / 1000
        return {
            name: (node, text_of(info) or "", max(0.0, float(end or 0) - now) / 1000)
            for (name, node), info, end in zip(living.items(), infos, ends, strict=True)
        }

    async def start_of(self, node_id: str, deadline: float) -> str | None:
        """The start of a node as it last joined, or None; it may be dead meanwhile."""
        incarnation = await self._shard.call(deadline, "HGET", self._keys.nodes, node_id)
        return (
            None if incarnation is None else incarnation.decode(errors="replace").partition(".")[0]
        )

    async def expired(self, deadline: float) -> list[str]:
        """Incarnations whose lease seems to be over."""
        now = self._shard.clock.at(asyncio.get_running_loop().time()) // 1000
        found = await self._shard.call(deadline, "ZRANGEBYSCORE", self._keys.leases, "-inf", now)
        return texts(found)

    async def next_end(self, deadline: float) -> float:
        """Redis time in ms at which the next lease ends, 0 when there is none."""
        now = self._shard.clock.at(asyncio.get_running_loop().time()) // 1000
        found = await self._shard.call(
            deadline,
            *("ZRANGEBYSCORE", self._keys.leases, f"({now}", "+inf"),
            *("WITHSCORES", "LIMIT", 0, 1),
        )
        return float(found[1]) if found else 0.0

    def now(self) -> float:
        """Redis time in seconds, as far as this process knows; never ahead of it."""
        return self._shard.clock.at(asyncio.get_running_loop().time()) / 1_000_000

    # -- the channel of this node ----------------------------------------------------------

    async def listeners(self, deadline: float) -> int:
        """The number of subscribers to the channel of this node's id, this node among them once
        it has the id."""
        channel = self._identity.own_channel
        return int((await self._shard.listeners(channel, deadline))[1])

    async def forget_channel(self, deadline: float) -> None:
        """Remove the counter of this start's channel, which is not used any more."""
        numbers = self._keys.numbers(self._identity.start_channel)
        await self._shard.call(deadline, "DEL", numbers)
