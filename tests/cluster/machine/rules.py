"""All possible steps, and what each step must lead to while all is calm."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule

from cluster_pool import BackplaneUnavailableError, SendResult
from cluster_pool.core.closing import NORMAL, TAKEN_OVER
from tests.cluster.machine import law, registry
from tests.cluster.machine.steps import Machine, anyone, given, pick, step
from tests.cluster.machine.world import MOST, Client, World
from tests.support import eventually

NAMES = ("a", "b", "c")

Key = tuple[str, str]
keys = st.sampled_from([("n", "x"), ("n", "y"), ("m", "x")])
places = st.sampled_from([("n", "x"), ("n", "y"), ("m", "x"), ("m", "y"), ("r", "x"), ("r", "y")])
"""Where there may be members or guests; ``r`` has guests only."""
haste = st.none() | st.sampled_from([None, 0.0, 1e-4, 2e-4, 4e-4, 1e-3, 0.01, 0.3])
"""Seconds after which the next thing happens, whether or not this one is answered; None waits."""


class Rules(Machine):
    """One to three nodes on one server; a derived class makes the world."""

    patience = 1.0
    """Seconds after which what was done in calm must show everywhere."""
    recovery = 30.0
    """Seconds after which all must be calm again."""
    longest_wait = 5.0
    glance = 0.2
    """Seconds between two looks at the registry."""
    punctual = True
    """Whether time passes as it should: else a lease may end because the machine is slow."""
    wounds: ClassVar[dict[str, Callable[[World], Any]]] = {
        "flush": World.flush,
        "forget scripts": World.forget_scripts,
    }
    """Faults of Redis, by name."""

    world: World

    async def watched(self, work: Any) -> None:
        """Watch the registry during a step: a fault that heals itself would be missed later."""
        task = asyncio.create_task(work)
        while not task.done():
            await asyncio.wait([task], timeout=self.glance)
            law.check_always(self.world)
        task.result()
        if self.world.calm:
            await self.world.until(lambda: law.objection(self.world), self.patience)
            if self.punctual:
                law.check_quiet(self.world)

    @initialize()
    @step
    async def begin(self, world: World) -> None:
        """Two nodes, and a member on each, which is a guest elsewhere."""
        for name, id, other in (("a", "x", "r"), ("b", "y", "m")):
            client = world.join(await world.start(name), ("n", id), takeover=False)
            await world.within(10, client.attempt)
            guest = world.visit(client, other, takeover=False)
            await world.within(10, guest.attempt)
            world.owners |= {client.key: client, guest.key: guest}

    def members(self) -> list[Client]:
        """Clients that were told to be members of a running node, and have not left."""
        return [one for one in self.world.clients if one.settled and one.node.running]

    def hosts(self) -> list[Client]:
        """Those of them that are at home."""
        return [one for one in self.members() if one.home is None and not one.websocket.closed]

    async def answered(self, task: asyncio.Task[Any], haste: float | None) -> bool:
        """Wait for an answer, or not; whether it is there."""
        if haste is None:
            await self.world.within(10, task)
            return True
        self.world.troubles.add("under way")
        await asyncio.sleep(haste)
        return False

    # -- members ---------------------------------------------------------------------------

    @given(lambda self: self.world.running)
    @rule(
        node=anyone,
        key=keys,
        takeover=st.booleans(),
        haste=haste,
        cancel=st.booleans(),
        user=st.sampled_from([None, "u", "v"]),
        roams=st.sampled_from(["", "n", "m", "r"]),
    )
    @step
    async def join(
        self,
        world: World,
        node: int,
        key: Key,
        takeover: bool,
        haste: float | None,
        cancel: bool,
        user: str | None,
        roams: str,
    ) -> None:
        """Claim an id; in haste, perhaps give up before there is an answer; else perhaps roam."""
        calm, owner = world.calm, world.owners.get(key)
        may = takeover or owner is None
        if user is not None:
            may = may and len(world.standing(user)) < MOST
        client = world.join(pick(world.running, node), key, takeover, user)
        if not await self.answered(client.attempt, haste):
            if cancel:
                client.attempt.cancel()
        elif calm:
            assert client.joined == may, f"{client}, owner {owner}"
            if client.joined:
                await self.taken_over(world, owner, client)
        if client.joined and roams not in ("", key[0]):
            await self.visited(world, client, roams, True, haste, False)

    async def taken_over(self, world: World, older: Client | None, newer: Client) -> None:
        """A client owns an id in peace; the one that had it, if any, learns it."""
        if older is not None:
            if older.home is None:
                await world.until(lambda: law.not_closed(older, TAKEN_OVER), self.patience)
            else:
                await world.until(lambda: law.not_told(older), self.patience)
            world.ends(older)
        world.owners[newer.key] = newer

    @given(lambda self: self.hosts())
    @rule(
        member=anyone,
        namespace=st.sampled_from(["n", "m", "r"]),
        takeover=st.booleans(),
        haste=haste,
        cancel=st.booleans(),
    )
    @step
    async def visit(
        self,
        world: World,
        member: int,
        namespace: str,
        takeover: bool,
        haste: float | None,
        cancel: bool,
    ) -> None:
        """Join a namespace besides; a second time it does nothing."""
        home = pick(self.hosts(), member)
        await self.visited(world, home, namespace, takeover, haste, cancel)

    async def visited(
        self,
        world: World,
        home: Client,
        namespace: str,
        takeover: bool,
        haste: float | None,
        cancel: bool,
    ) -> None:
        """A client has begun to join a namespace besides, or has joined it."""
        calm = world.calm
        before = world.latest(home.connection, namespace)
        if before is not None and before.may_stay:
            if calm and before.settled:
                await home.connection.join(namespace)
            return
        owner = world.owners.get((namespace, home.key[1]))
        client = world.visit(home, namespace, takeover)
        if not await self.answered(client.attempt, haste):
            if cancel:
                client.attempt.cancel()
        elif calm:
            assert client.joined == (takeover or owner is None), f"{client}, owner {owner}"
            if client.joined:
                await self.taken_over(world, owner, client)

    @given(members)
    @rule(member=anyone, haste=haste)
    @step
    async def leave(self, world: World, member: int, haste: float | None) -> None:
        """Release."""
        client, calm = pick(self.members(), member), world.calm
        task = world.leave(client)
        if not await self.answered(task, haste):
            return
        if calm:
            if world.owners.get(client.key) is client:
                world.ends(client)
                last = not any(key[0] == client.key[0] for key in world.owners)
                assert task.result() is last, f"{client} emptied its namespace: {last}"
            # one that was closed before has left already, and may be told now that it was the last
        elif task.exception() is not None:
            assert isinstance(task.exception(), BackplaneUnavailableError)

    # -- messages --------------------------------------------------------------------------

    @given(lambda self: self.world.running)
    @rule(node=anyone, key=places, confirm=st.booleans(), haste=haste)
    @step
    async def send(
        self, world: World, node: int, key: Key, confirm: bool, haste: float | None
    ) -> None:
        """Send to one."""
        calm, owner = world.calm, world.owners.get(key)
        task = world.send(pick(world.running, node), key, confirm)
        if await self.answered(task, haste) and calm:
            message = task.result()
            if owner is None:
                assert message.result is SendResult.ABSENT
            else:
                assert message.result in (SendResult.DELIVERED, SendResult.ROUTED)
                assert message.result is SendResult.DELIVERED or not confirm
                await world.until(lambda: law.not_got(world, message, {owner}), self.patience)

    @given(lambda self: self.world.running)
    @rule(node=anyone, namespace=st.sampled_from(["n", "m", "r"]), haste=haste)
    @step
    async def broadcast(self, world: World, node: int, namespace: str, haste: float | None) -> None:
        """Send to all."""
        calm = world.calm
        task = world.broadcast(pick(world.running, node), namespace)
        if await self.answered(task, haste) and calm:
            message = task.result()
            owners = {one for key, one in world.owners.items() if key[0] == namespace}
            assert message.result >= len({one.node for one in owners})
            await world.until(lambda: law.not_got(world, message, owners), self.patience)

    @given(lambda self: self.world.running)
    @rule(node=anyone, key=places, haste=haste)
    @step
    async def close(self, world: World, node: int, key: Key, haste: float | None) -> None:
        """Close the owner of an id, by whichever membership it is named."""
        calm, owner = world.calm, world.owners.get(key)
        task = world.close(pick(world.running, node), key)
        if await self.answered(task, haste) and calm:
            assert task.result() is (SendResult.DELIVERED if owner else SendResult.ABSENT)
            if owner is not None:
                world.ends(owner.home or owner)
                await world.until(lambda: law.not_closed(owner, NORMAL), self.patience)

    # -- nodes and faults ------------------------------------------------------------------

    @given(lambda self: len(self.world.alive) < len(NAMES))
    @rule()
    @step
    async def start(self, world: World) -> None:
        """Start a node under the first id that no living one has."""
        taken = {node.name for node in world.alive}
        await world.start(next(name for name in NAMES if name not in taken))

    @given(lambda self: self.world.running)
    @rule(node=anyone)
    @step
    async def stop(self, world: World, node: int) -> None:
        """SIGTERM."""
        await world.stop(pick(world.running, node))

    @given(lambda self: self.world.alive)
    @rule(node=anyone, fault=st.sampled_from(sorted(World.FAULTS)))
    @step
    async def fault(self, world: World, node: int, fault: str) -> None:
        """One fault of a node or of its network."""
        await world.fault(pick(world.alive, node), fault)

    @given(lambda self: self.world.troubles and self.world.alive)
    @rule(node=anyone)
    @step
    async def mend(self, world: World, node: int) -> None:
        """End the faults of one node."""
        await world.mend(pick(world.alive, node))

    @rule(data=st.data())
    def wound(self, data: st.DataObject) -> None:
        """One fault of Redis."""
        self.inflict(wound=data.draw(st.sampled_from(sorted(self.wounds))))

    @step
    async def inflict(self, world: World, wound: str) -> None:
        """One of the wounds."""
        self.wounds[wound](world)

    @given(lambda self: self.world.calm)
    @rule(key=st.integers(0, 20), field=st.none() | st.integers(0, 3))
    @step
    async def harm(self, world: World, key: int, field: int | None) -> None:
        """Remove one key or field by hand; the cluster repairs it, and no member leaves."""
        world.troubles.add("harm")
        registry.harm(world.raw, world.keys, key, field)
        await self.calm_down(world)

    # -- time ------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([0.001, 0.1, 0.5, 1.0, 2.0, 3.0, 5.0]))
    @step
    async def wait(self, world: World, seconds: float) -> None:
        """Time passes."""
        await asyncio.sleep(min(seconds, self.longest_wait))

    @given(lambda self: self.world.troubles)
    @rule()
    @step
    async def settle(self, world: World) -> None:
        """Heal everything, and wait until all is calm."""
        await self.calm_down(world)

    async def calm_down(self, world: World) -> None:
        """From here on the model knows again who owns what."""
        for node in world.alive:
            await world.mend(node)
        if not world.alive:
            await world.start(NAMES[0])
        await world.within(self.recovery, *world.under_way)
        await asyncio.sleep(2 * world.timing.heartbeat)  # some harm is noticed only then
        await world.until(lambda: law.disagreement(world), self.recovery)
        world.troubles.clear()
        world.owners = {key: holders[0][0] for key, holders in law.held(world).items()}
        world.unrest = law.unrest(world)
        for client in world.attempts:
            law.check_attempt(world, client)
        world.attempts.clear()
        law.check_clients(world)

    async def finish(self, world: World) -> None:
        """Heal, compare, stop."""
        await self.calm_down(world)
        assert not law.objection(world), law.objection(world)
        law.check_messages(world)
        for node in world.alive:
            await world.stop(node)
        # The last commands of a node are written before it stops; Redis may read them later.
        with contextlib.suppress(AssertionError):
            await eventually(lambda: not world.backend.leaked())
        assert not world.backend.leaked(), world.backend.leaked()
