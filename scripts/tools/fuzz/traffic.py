"""Recorded messages between real nodes: hostile payloads are made from them."""

import asyncio
from dataclasses import dataclass, field

from redis.asyncio import Redis

from cluster_pool import ClusterPool, Connection
from cluster_pool.core.keys import Keys
from cluster_pool.testing import FakeWebSocket

NAMESPACE, ALICE, NODE = "room", "alice", "victim"


@dataclass
class Recorded:
    """Payloads, by the kind of channel they were on."""

    broadcasts: list[bytes] = field(default_factory=list)
    targeted: list[bytes] = field(default_factory=list)
    events: list[bytes] = field(default_factory=list)

    @property
    def envelopes(self) -> list[bytes]:
        return self.broadcasts + self.targeted


async def record(url: str, prefix: str, secret: str | None = None) -> Recorded:
    """Let two nodes say everything they can say once, and keep it.

    One is called as the node that will be attacked; both are gone afterwards, so that nothing
    forged in their names can concern a living one.
    """
    keys = Keys(prefix)
    recorded = Recorded()
    by_channel = {
        keys.channel(NAMESPACE).encode(): recorded.broadcasts,
        keys.node_channel(NODE).encode(): recorded.targeted,
        keys.events(NAMESPACE).encode(): recorded.events,
    }
    async with Redis.from_url(url) as redis, redis.pubsub() as ear:
        await ear.subscribe(*by_channel)
        await ear.psubscribe(f"{keys.start_prefix}*")
        async with (
            ClusterPool(url, prefix=prefix, secret=secret, node_id=NODE) as node,
            ClusterPool(url, prefix=prefix, secret=secret) as other,
        ):
            await _say_everything(node, other)
        while (message := await ear.get_message(timeout=0.2)) is not None:
            if message["type"] == "message":
                by_channel[message["channel"]].append(message["data"])
            elif message["type"] == "pmessage":
                recorded.targeted.append(message["data"])
    assert recorded.broadcasts
    assert recorded.targeted
    assert recorded.events
    return recorded


async def _say_everything(node: ClusterPool, other: ClusterPool) -> None:
    async def join(pool: ClusterPool, id: str) -> None:
        await pool.new_connection(Connection(id, NAMESPACE, FakeWebSocket()))

    await join(node, ALICE)
    await join(other, "bob")
    await asyncio.gather(*[other.broadcast_message(NAMESPACE, f"hi {at}") for at in range(3)])
    await other.broadcast_message(NAMESPACE, b"\x00\xff", exclude=[ALICE, "bob"])
    await other.send(NAMESPACE, ALICE, "hello")
    await other.send(NAMESPACE, ALICE, b"\x00\xff", confirm=True)
    await node.send(NAMESPACE, "bob", "hello", confirm=True)
    await other.send_then_close(NAMESPACE, ALICE, "bye", 4000, "reason")
    await join(node, ALICE)
    await join(other, ALICE)
    await join(node, ALICE)
    await other.close(NAMESPACE, ALICE, 4000, "reason", confirm=True)
    await join(node, ALICE)
    await other.close_all(NAMESPACE, 4000, "reason")
