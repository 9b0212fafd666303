"""A node that hears hostile payloads: each is delivered or counted, and life goes on."""

import asyncio
import contextlib
import json
from dataclasses import dataclass
from random import Random
from typing import Any, Self

from redis.asyncio import Redis

from cluster_pool import ClusterPool, Connection
from cluster_pool.core import envelope
from cluster_pool.core.envelope import BrokenEnvelopeError
from cluster_pool.core.keys import Keys
from cluster_pool.core.seals import BOUND, ROUTED
from cluster_pool.testing import FakeWebSocket
from tools.fuzz import mutation, traffic
from tools.fuzz.envelopes import ITEMS, hostile_items
from tools.fuzz.traffic import ALICE, NAMESPACE, NODE
from tools.harness.internals import start_channel
from tools.harness.servers import RedisServer

PREFIX = "cluster_pool:fuzz"
LARGEST = 1024 * 1024
PATIENCE = 10.0
SILENT_KINDS = (envelope.REPLY, envelope.TAKEN, envelope.PLACE, BOUND, ROUTED)
"""Kinds that may have no effect: nothing waits, it is about a claim of another node, or it is one
of these inside a seal.
"""
EFFECTS = ("delivered", "refused", "undelivered", "taken_over")


@dataclass(frozen=True)
class Payload:
    """A payload, and the kind of channel on which it is published."""

    channel: str
    content: bytes


class Channels:
    """Payloads on the channel of a namespace, of the node, and of joins and leaves.

    Behind each of them something valid is sent the same way, which must arrive.
    """

    name, share = "channels", 1.0
    secret: str | None = None

    async def __aenter__(self) -> Self:
        async with contextlib.AsyncExitStack() as stack:
            url = stack.enter_context(RedisServer()).url
            self._real = await traffic.record(url, PREFIX, self.secret)
            self._redis: Redis = await stack.enter_async_context(Redis.from_url(url))
            self._node = await stack.enter_async_context(
                ClusterPool(url, prefix=PREFIX, secret=self.secret, node_id=NODE)
            )
            self._other = await stack.enter_async_context(
                ClusterPool(url, prefix=PREFIX, secret=self.secret)
            )
            self._events = await stack.enter_async_context(self._node.watching(NAMESPACE))
            self._stack = stack.pop_all()
        keys = Keys(PREFIX)
        self._names = {
            "namespace": keys.channel(NAMESPACE),
            "node": start_channel(self._node),
            "events": keys.events(NAMESPACE),
        }
        self._sentinels = 0
        await self._join()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._stack.aclose()

    async def _join(self) -> None:
        """Make a new member, and wait until the watcher has read the event."""
        self._alice = FakeWebSocket()
        self._connection = Connection(ALICE, NAMESPACE, self._alice)
        await self._node.new_connection(self._connection)
        await self._next_event("join", ALICE)

    async def _next_event(self, event: str, id: str) -> None:
        async with asyncio.timeout(PATIENCE):
            async for heard in self._events:
                assert heard.event in ("join", "leave", "lost")
                assert isinstance(heard.id, str)
                if (heard.event, heard.id) == (event, id):
                    return

    def make(self, random: Random) -> Payload:
        channel = random.choice(("namespace", "namespace", "node", "node", "node", "events"))
        if channel == "events":
            return Payload(channel, self._hostile_events(random))
        real = self._real.broadcasts if channel == "namespace" else self._real.targeted
        original = random.choice(real)
        end = original.find(b"\n") + 1
        match random.randrange(10):
            case 0:
                content = random.randbytes(random.randint(0, 200))
            case 1:
                content = mutation.text(random).encode(errors="surrogatepass")
            case 2 | 3 | 4 | 5:
                content = original[:end] + hostile_items(random, LARGEST)
            case 6:
                content = mutation.mutated(random, original[:end], real) + random.choice(ITEMS)
            case _:
                content = mutation.mutated(random, original, real)
        if random.random() < 0.002:
            content += random.choice((b"x", b"\x91", b"\n")) * random.randint(1, 4 * LARGEST)
        return Payload(channel, content)

    def _hostile_events(self, random: Random) -> bytes:
        fields: dict[str, Any] = {"event": "join", "id": "bob", "node": "n"}
        fields[random.choice(list(fields))] = random.choice(
            (mutation.text(random), None, 1, "x" * 300, [[]] * 5, {})
        )
        line = json.dumps(fields).encode()
        match random.randrange(20):
            case 0:
                return (line + b"\n") * random.randint(1, LARGEST // (2 * len(line)))
            case 1:
                return random.choice((b"[", b'{"event":', b"1")) * random.randint(1, 100_000)
            case chance if chance < 10:
                return line
            case _:
                return mutation.mutated(random, random.choice(self._real.events), [line])

    async def judge(self, case: Payload) -> bool:
        before = self._node.counters.as_dict()
        was = self._alice
        await self._redis.publish(self._names[case.channel], case.content)
        await self._something_valid(case.channel)
        after = self._node.counters.as_dict()
        changed = {
            name: count - before[name] for name, count in after.items() if isinstance(count, int)
        }
        dropped = sum(count for name, count in changed.items() if name.startswith("dropped_"))
        if self._alice is was and case.channel != "events":
            changed["delivered"] -= 1  # what was sent behind it
        acted = self._alice is not was or any(changed[name] for name in EFFECTS)
        assert changed["rejoins"] == changed["generations"] == 0
        assert dropped or acted or _may_be_silent(case), f"neither delivered nor counted: {changed}"
        return not dropped

    async def _something_valid(self, channel: str) -> None:
        """Send what must arrive; first with a new member if the old one was told to go."""
        self._sentinels += 1
        sentinel = f"sentinel {self._sentinels}"
        if channel == "events":
            event = json.dumps({"event": "leave", "id": sentinel, "node": NODE})
            await self._redis.publish(self._names[channel], event)
            await self._next_event("leave", sentinel)
            return
        if channel == "namespace":
            await self._other.broadcast_message(NAMESPACE, sentinel)
        else:
            await self._other.send(NAMESPACE, ALICE, sentinel)
        async with asyncio.timeout(PATIENCE):
            while sentinel not in self._alice.sent:
                if self._connection.closed:
                    assert self._alice.closed is not None, "its transport failed"
                    await self._join()
                    return
                await asyncio.sleep(0)
        self._alice.sent.clear()


class Sealed(Channels):
    """The same in a cluster that has a secret, whose items are sealed."""

    name, share = "sealed", 0.5
    secret = "sixteen bytes or more"


def _may_be_silent(case: Payload) -> bool:
    """Whether a payload that can be read asks for nothing that would be seen."""
    if case.channel == "events":
        return True  # they are counted by nobody, and came out of the watch
    try:
        _, start = envelope.read_header(case.content)
        items = list(envelope.read_items(case.content[start:]))
    except BrokenEnvelopeError:
        return False
    if case.channel == "node":
        items = [item[1] for item in items]
    return all(
        item[0] in SILENT_KINDS or (case.channel == "namespace" and ALICE in item[2])
        for item in items
    )
