"""All possible steps, and what each must lead to while all is calm."""

import asyncio
from collections.abc import Callable
from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule
from websockets.frames import CLOSE, PING

from cluster_pool import SendResult
from tests.cluster.machine.steps import Machine, anyone, given, pick, step
from tests.cluster.returns import law
from tests.cluster.returns.world import HOME, SIDE, Leg, Message, Node, Reader, World

NAMES = ("a", "b", "c")
readers = st.sampled_from([("x", None), ("x", "u"), ("x", "v"), ("y", "u"), ("y", "u")])
"""Mostly the same user for an id."""
namespaces = st.sampled_from([HOME, HOME, SIDE])
haste = st.sampled_from([None, None, None, 0.0, 1e-4, 4e-4, 1e-3, 0.3])
"""Seconds after which the next thing happens, whether or not this one is answered; None waits."""


class Rules(Machine):
    """Two or three nodes on one server; a derived class makes the world."""

    patience = 5.0
    """Seconds after which what was done in calm must show everywhere."""
    recovery = 60.0
    """Seconds after which all must be calm again."""
    virtual = True
    """Whether time costs nothing."""
    wounds: ClassVar[dict[str, Callable[[World], Any]]] = {
        "flushed": lambda world: world.raw.flushall(),
        "scripts": lambda world: world.raw.script_flush(),
        "history": lambda world: world.delete("history"),
        "trimmed": lambda world: world.trim(),
        "positions": lambda world: world.delete("positions", "former_positions"),
        "epoch": lambda world: world.begin_anew(),
    }
    """All that may be done to Redis, by name."""

    world: World

    async def watched(self, work: Any) -> None:
        """Look at the histories during a step, since messages leave them."""
        task = asyncio.create_task(work)
        while not task.done():
            await asyncio.wait([task], timeout=0.2)
            law.check_always(self.world)
        task.result()
        law.check_always(self.world)

    @initialize()
    @step
    async def begin(self, world: World) -> None:
        """Two nodes, and a member on each."""
        for name, reader in (("a", ("x", "u")), ("b", ("y", "u"))):
            leg = world.come(reader, await world.start(name))
            await world.until(lambda leg=leg: "" if leg.stays else f"{leg} waits", 20)

    def open_legs(self) -> list[Leg]:
        """Connections that are open at both ends."""
        return [one for one in self.world.legs if one.open and one.wire.open]

    def guests(self) -> list[Leg]:
        """Those of them at a node that runs."""
        return [one for one in self.open_legs() if one.node.running]

    def lines(self) -> list[Leg]:
        """Connections by which a client may still get something."""
        return [one for one in self.world.legs if one.wire.open]

    # -- clients -----------------------------------------------------------------------------

    @given(lambda self: self.world.running)
    @rule(node=anyone, reader=readers, haste=haste, answers=st.booleans(), joins=st.booleans())
    @step
    async def come(
        self,
        world: World,
        node: int,
        reader: Reader,
        haste: float | None,
        answers: bool,
        joins: bool,
    ) -> None:
        """A client connects, or comes back; its former connection may still stand."""
        await self.comes(world, pick(world.running, node), reader, haste, answers, joins)

    async def comes(
        self,
        world: World,
        node: Node,
        reader: Reader,
        haste: float | None,
        answers: bool = True,
        joins: bool = False,
    ) -> None:
        former = [one for one in self.open_legs() if one.reader[0] == reader[0]]
        calm = world.calm
        leg = world.come(reader, node)
        if haste is not None:
            world.trouble("under way")
            await asyncio.sleep(haste)
            return
        while not leg.task.done() and not leg.stays:
            for one in former if answers else ():
                one.wire.take()
            await asyncio.sleep(0.01)
        if calm:
            assert leg.stays, f"{leg} was refused"
            for one in former if answers else ():
                one.prove()
            if joins:
                await self.joined(world, leg)

    @given(guests)
    @rule(leg=anyone)
    @step
    async def join(self, world: World, leg: int) -> None:
        """A client joins the other namespace."""
        await self.joined(world, pick(self.guests(), leg))

    async def joined(self, world: World, leg: Leg) -> None:
        assert leg.connection is not None
        if SIDE not in leg.connection.namespaces:
            calm, task = world.calm, world.join(leg)
            await world.within(20, task)
            assert not calm or task.result() or not leg.open, f"{leg} could not join"

    @given(guests)
    @rule(leg=anyone)
    @step
    async def leave(self, world: World, leg: int) -> None:
        """A client leaves the other namespace."""
        one = pick(self.guests(), leg)
        assert one.connection is not None
        if SIDE in one.connection.namespaces:
            await world.within(20, world.leave_side(one))

    @given(lines)
    @rule(leg=anyone, share=st.sampled_from([0.3, 1.0, 1.0]))
    @step
    async def take(self, world: World, leg: int, share: float) -> None:
        """A client reads."""
        pick(self.lines(), leg).wire.take(share)
        await asyncio.sleep(0)

    @given(lines)
    @rule(leg=anyone, pings=st.booleans(), closes=st.booleans())
    @step
    async def refuse_to_answer(self, world: World, leg: int, pings: bool, closes: bool) -> None:
        """A client answers no Pings, or no Closes, from now on."""
        pick(self.lines(), leg).wire.answers = {PING: pings, CLOSE: closes}

    @given(lambda self: [one for one in self.lines() if one.wire.pings])
    @rule(leg=anyone, which=anyone)
    @step
    async def pong_late(self, world: World, leg: int, which: int) -> None:
        """A client answers a Ping late, and perhaps not the last one."""
        pick([one for one in self.lines() if one.wire.pings], leg).wire.answer_late(which)
        await asyncio.sleep(0)

    @given(lines)
    @rule(leg=anyone, payload=st.sampled_from([b"", b"x", bytes(8), b"\xff" * 8, b"y" * 125]))
    @step
    async def pong_garbage(self, world: World, leg: int, payload: bytes) -> None:
        """A client sends a Pong that nobody asked for, before it has read anything."""
        pick(self.lines(), leg).wire.pong(payload)
        await asyncio.sleep(0)

    @given(lines)
    @rule(leg=anyone, how=st.sampled_from(["closes", "reset", "silent"]))
    @step
    async def go(self, world: World, leg: int, how: str) -> None:
        """A client leaves, or its network breaks; a node may not hear of that."""
        one = pick(self.lines(), leg)
        if how == "closes":
            one.wire.leave()
        else:
            one.wire.cut(told=how == "reset")
        await asyncio.sleep(0)

    @given(lambda self: self.world.calm and self.open_legs())
    @rule(leg=anyone)
    @step
    async def prove(self, world: World, leg: int) -> None:
        """A client answers the keepalive, and its node stores that."""
        one = pick(self.open_legs(), leg)
        one.wire.answers[PING] = True
        one.wire.take()
        world.ping(one)
        one.wire.take()
        await asyncio.sleep(0.01)
        if one.wire.proved == len(one.wire.got) and one.open:
            await asyncio.sleep(2.0 if self.virtual else 3.0)
            one.prove(one.wire.proved)

    # -- messages ----------------------------------------------------------------------------

    @given(lambda self: self.world.running)
    @rule(
        node=anyone,
        namespace=namespaces,
        kinds=st.lists(
            st.sampled_from(["all", "all", "but x", "but y", "x", "y", "never", "large"]),
            min_size=1,
            max_size=6,
        ),
        confirm=st.booleans(),
        haste=haste,
    )
    @step
    async def send(
        self,
        world: World,
        node: int,
        namespace: str,
        kinds: list[str],
        confirm: bool,
        haste: float | None,
    ) -> None:
        """One node sends several messages, without waiting in between."""
        calm, sender = world.calm, pick(world.running, node)
        tasks = [self.one_of(world, sender, namespace, kind, confirm) for kind in kinds]
        if haste is not None:
            world.trouble("under way")
            await asyncio.sleep(haste)
            return
        await world.within(20, *tasks)
        if calm:
            for task in tasks:
                self.check_answer(world, task.result())
            await self.all_have(world)

    def one_of(
        self, world: World, node: Node, namespace: str, kind: str, confirm: bool
    ) -> asyncio.Task[Message]:
        """Begin to send a message of a kind."""
        if kind in ("all", "large"):
            return world.broadcast(node, namespace, size=900 if kind == "large" else 0)
        if kind.startswith("but "):
            return world.broadcast(node, namespace, exclude=(kind[4:],))
        return world.send(node, namespace, kind, confirm)

    def check_answer(self, world: World, message: Message) -> None:
        """The answer is true; all was calm."""
        assert not isinstance(message.result, Exception), message
        world.witness.look()
        recorded = message.number in world.witness.records[message.namespace]
        if not message.id:
            assert recorded or not self.is_recorded(world, message.namespace), message
        elif message.result is SendResult.PARKED:
            assert recorded, message
        elif message.id == "never":
            assert message.result is SendResult.ABSENT, message
            assert not recorded, message

    def is_recorded(self, world: World, namespace: str) -> bool:
        """Whether a namespace had members lately: then it has a history."""
        return any(law.is_present(one) for one in world.stays if one.namespace == namespace)

    async def all_have(self, world: World) -> None:
        """All clients read, and have all that was sent, in time."""

        def lacking() -> str:
            for leg in self.open_legs():
                leg.wire.take()
            return law.lacking(world)

        await world.until(lacking, self.patience)

    # -- nodes, networks and Redis -----------------------------------------------------------

    @given(lambda self: len(self.world.alive) < len(NAMES))
    @rule()
    @step
    async def start(self, world: World) -> None:
        """Start a node under the first id that no living one has."""
        taken = {node.name for node in world.alive}
        await world.mend_all()
        await world.start(next(name for name in NAMES if name not in taken))

    @given(lambda self: len(self.world.running) > 1)
    @rule(node=anyone, how=st.sampled_from([World.stop, World.kill]))
    @step
    async def end(self, world: World, node: int, how: Callable[[World, Node], Any]) -> None:
        """A deploy, or a crash."""
        await how(world, pick(world.running, node))

    @given(lambda self: self.world.running)
    @rule(
        node=anyone,
        how=st.sampled_from(["cut", "refuse", "hold", "hold down", "hold up", "freeze"]),
        delay=st.sampled_from([0.0, 0.1, 2.0, 5.0]),
    )
    @step
    async def interrupt(self, world: World, node: int, how: str, delay: float) -> None:
        """A node loses Redis, or stands still; for a moment, or until all is mended."""
        await world.interrupt(pick(world.running, node), how)
        await asyncio.sleep(delay if self.virtual else min(delay, 1.0))

    @given(lambda self: self.world.troubles)
    @rule()
    @step
    async def mend(self, world: World) -> None:
        """All networks carry again."""
        await world.mend_all()

    @rule(data=st.data())
    def wound(self, data: Any) -> None:
        """Redis loses something."""
        self.inflict(wound=data.draw(st.sampled_from(sorted(self.wounds))))

    @step
    async def inflict(self, world: World, wound: str) -> None:
        """One of the wounds."""
        world.witness.look()
        world.trouble(wound)
        self.wounds[wound](world)

    @rule(seconds=st.sampled_from([0.01, 0.5, 0.5, 1.5, 1.5, 4.0, 12.0, 35.0]))
    @step
    async def wait(self, world: World, seconds: float) -> None:
        """Time passes."""
        await asyncio.sleep(seconds if self.virtual else min(seconds, 1.5))

    @rule()
    @step
    async def grow_old(self, world: World) -> None:
        """So much time passes that who is away is perhaps forgotten, but for messages."""
        world.grow_old()
        await asyncio.sleep(1.5)

    @given(lambda self: self.world.troubles)
    @rule()
    @step
    async def settle(self, world: World) -> None:
        """Mend everything, and wait until all is calm."""
        await self.calm_down(world)

    async def calm_down(self, world: World) -> None:
        """From here on nothing is under way."""
        await world.mend_all()
        if not world.alive:
            await world.start(NAMES[0])
        for leg in self.lines():
            leg.wire.take()
        await world.within(self.recovery, *[one for one in world.under_way if not one_serves(one)])
        await asyncio.sleep(2 * world.timing.heartbeat)  # some harm is noticed only then
        await world.until(world.unrest, self.recovery)
        await self.all_have(world)
        world.troubles.clear()

    async def finish(self, world: World) -> None:
        """In the end all is calm, and nothing was skipped."""
        await self.calm_down(world)


def one_serves(task: asyncio.Task[Any]) -> bool:
    """Whether a task lasts as long as a connection."""
    return task.get_name() == "leg"
