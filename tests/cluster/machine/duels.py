"""Rules of several steps, for situations that random single steps would reach too seldom."""

import asyncio

from hypothesis import strategies as st
from hypothesis.stateful import rule

from tests.cluster.machine.afar import Afar
from tests.cluster.machine.rules import Key, keys
from tests.cluster.machine.steps import anyone, given, pick, step
from tests.cluster.machine.world import World

delays = st.sampled_from([0.0, 0.001, 0.5, 2.5, 4.0])


class Duels(Afar):
    """Two nodes that want one id; and several messages of one node without a pause."""

    @given(lambda self: self.world.calm and self.world.owners and len(self.world.running) > 1)
    @rule(member=anyone)
    @step
    async def take_over(self, world: World, member: int) -> None:
        """Another node wins an id in peace."""
        older = pick(list(world.owners.values()), member)
        rival = next(node for node in world.running if node is not older.node)
        newer = world.join(rival, older.key, takeover=True)
        await world.within(10, newer.attempt)
        await self.taken_over(world, older, newer)

    @given(lambda self: self.members() and len(self.world.running) > 1)
    @rule(
        member=anyone,
        fault=st.sampled_from(sorted({*World.FAULTS} - {"crash"})),
        delay=delays,
        leaves=st.booleans(),
    )
    @step
    async def usurp(
        self, world: World, member: int, fault: str, delay: float, leaves: bool
    ) -> None:
        """A node in trouble loses an id to another; perhaps its client leaves before it knows."""
        older = pick(self.members(), member)
        await world.fault(older.node, fault)
        await asyncio.sleep(min(delay, self.longest_wait))
        rival = next(node for node in world.running if node is not older.node)
        newer = world.join(rival, older.key, takeover=True)
        await world.within(10, newer.attempt)
        if leaves:
            world.leave(older)
        await asyncio.sleep(0.01)  # the leave is under way, or done, when the node is mended
        await world.mend(older.node)

    @given(lambda self: len(self.world.running) > 1)
    @rule(node=anyone, key=keys, takeover=st.booleans(), over=st.booleans())
    @step
    async def claim_late(
        self, world: World, node: int, key: Key, takeover: bool, over: bool
    ) -> None:
        """The network keeps a claim back, perhaps until its time is over; another has the id."""
        slow = pick(world.running, node)
        await world.fault(slow, "hold up")
        late = world.join(slow, key, takeover)
        await world.within(10, late.attempt)
        if over:
            await asyncio.sleep(max(0.0, late.ended - world.now) + 0.001)
        rival = next(node for node in world.running if node is not slow)
        await world.within(10, world.join(rival, key, takeover=True).attempt)
        await world.mend(slow)

    @given(lambda self: self.world.running)
    @rule(node=anyone, key=keys, kinds=st.lists(st.booleans(), min_size=2, max_size=5))
    @step
    async def burst(self, world: World, node: int, key: Key, kinds: list[bool]) -> None:
        """Messages to one and to all, without waiting in between."""
        sender = pick(world.running, node)
        begun = [
            world.send(sender, key, confirm=False) if one else world.broadcast(sender, key[0])
            for one in kinds
        ]
        await world.within(10, *begun)
