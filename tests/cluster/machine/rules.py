"""What may happen, step by step, and what each step must lead to while all is calm."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from cluster_pool import BackplaneUnavailableError, SendResult
from cluster_pool.core.closing import NORMAL, TAKEN_OVER
from tests.cluster.machine import law, registry
from tests.cluster.machine.world import Client, World

NAMES = ("a", "b", "c")
T = TypeVar("T")

anyone = st.integers(0, 2)
namespaces = st.sampled_from(["n", "m"])
ids = st.sampled_from(["x", "y"])
haste = st.none() | st.sampled_from([0.0, 1e-4, 2e-4, 4e-4, 1e-3, 0.01, 0.3])
"""Seconds after which the next thing happens, whether or not this one is answered; None waits."""


def pick(candidates: list[T], number: int) -> T:
    """One of the candidates, of which there is at least one."""
    return candidates[number % len(candidates)]


def step(do: Callable[..., Any]) -> Callable[..., Any]:
    """Make a rule of a coroutine function, and see that the law holds behind it."""

    def run(self: "Rules", **drawn: Any) -> None:
        async def work() -> None:
            await do(self, self.world, **drawn)
            law.check_always(self.world)
            if self.world.calm:
                await self.world.until(lambda: law.objection(self.world), self.patience)

        try:
            self.runner.run(work())
        except BaseException:
            self.broken = True
            raise

    run.__name__, run.__doc__ = do.__name__, do.__doc__
    return run


def given(some: Callable[["Rules"], Any]) -> Any:
    """The precondition of a rule: that there is one of these."""
    return precondition(lambda self: bool(some(self)))


class Rules(RuleBasedStateMachine):
    """One to three nodes on one server; whoever derives from it makes the world."""

    patience = 1.0
    """Seconds after which what was done in calm must show everywhere."""
    recovery = 30.0
    """Seconds after which all must be calm again."""
    longest_wait = 5.0

    def __init__(self) -> None:
        super().__init__()
        self.broken = False
        self.stack = contextlib.ExitStack()
        self.world: World
        self.runner = self.open()

    def open(self) -> asyncio.Runner:
        """Make ``world``, and the loop in which it lives."""
        raise NotImplementedError

    @initialize()
    @step
    async def begin(self, world: World) -> None:
        """Two nodes."""
        await world.start("a")
        await world.start("b")

    def members(self) -> list[Client]:
        """Who was told to be a member of a node that runs, and never left."""
        return [one for one in self.world.clients if one.settled and one.node.running]

    def claiming(self) -> list[Client]:
        """Whose attempt is not answered."""
        return [one for one in self.world.attempts if one.attempt in self.world.under_way]

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
    @rule(node=anyone, namespace=namespaces, id=ids, takeover=st.booleans(), haste=haste)
    @step
    async def join(
        self,
        world: World,
        node: int,
        namespace: str,
        id: str,
        takeover: bool,
        haste: float | None,
    ) -> None:
        """Claim an id."""
        calm, owner = world.calm, world.owners.get((namespace, id))
        client = world.join(pick(world.running, node), namespace, id, takeover)
        assert client.attempt is not None
        if await self.answered(client.attempt, haste) and calm:
            assert client.joined == (takeover or owner is None)
            if client.joined:
                world.owners[client.key] = client
                if owner is not None:
                    await world.until(lambda: law.not_closed(owner, TAKEN_OVER), self.patience)

    @given(claiming)
    @rule(client=anyone)
    @step
    async def cancel(self, world: World, client: int) -> None:
        """Cancel a claim that is not answered."""
        if claiming := self.claiming():  # it may have been answered just now
            attempt = pick(claiming, client).attempt
            assert attempt is not None
            attempt.cancel()

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
            owned = world.owners.get(client.key) is client
            if owned:
                del world.owners[client.key]
            last = owned and not any(key[0] == client.key[0] for key in world.owners)
            assert task.result() is last
        elif task.exception() is not None:
            assert isinstance(task.exception(), BackplaneUnavailableError)

    # -- messages --------------------------------------------------------------------------

    @given(lambda self: self.world.running)
    @rule(node=anyone, namespace=namespaces, id=ids, confirm=st.booleans(), haste=haste)
    @step
    async def send(
        self,
        world: World,
        node: int,
        namespace: str,
        id: str,
        confirm: bool,
        haste: float | None,
    ) -> None:
        """Send to one."""
        calm, owner = world.calm, world.owners.get((namespace, id))
        task = world.send(pick(world.running, node), namespace, id, confirm)
        if await self.answered(task, haste) and calm:
            message = task.result()
            if owner is None:
                assert message.result is SendResult.ABSENT
            else:
                assert message.result in (SendResult.DELIVERED, SendResult.ROUTED)
                assert message.result is SendResult.DELIVERED or not confirm
                await world.until(lambda: law.not_got(world, message, {owner}), self.patience)

    @given(lambda self: self.world.running)
    @rule(node=anyone, namespace=namespaces, haste=haste)
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
    @rule(node=anyone, namespace=namespaces, id=ids, haste=haste)
    @step
    async def close(
        self, world: World, node: int, namespace: str, id: str, haste: float | None
    ) -> None:
        """Close whoever has an id."""
        calm, owner = world.calm, world.owners.get((namespace, id))
        task = world.close(pick(world.running, node), namespace, id)
        if await self.answered(task, haste) and calm:
            assert task.result() is (SendResult.DELIVERED if owner else SendResult.ABSENT)
            if owner is not None:
                owner.leaves = True
                del world.owners[owner.key]
                await world.until(lambda: law.not_closed(owner, NORMAL), self.patience)

    # -- nodes -----------------------------------------------------------------------------

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
    @rule(node=anyone)
    @step
    async def crash(self, world: World, node: int) -> None:
        """SIGKILL."""
        await world.crash(pick(world.alive, node))

    @given(lambda self: self.world.running)
    @rule(node=anyone)
    @step
    async def freeze(self, world: World, node: int) -> None:
        """SIGSTOP."""
        world.troubles.add("freeze")
        pick(world.running, node).process.freeze()

    @given(lambda self: [node for node in self.world.alive if not node.running])
    @rule(node=anyone)
    @step
    async def thaw(self, world: World, node: int) -> None:
        """SIGCONT."""
        pick([one for one in world.alive if not one.running], node).process.thaw()

    # -- the network of one node -----------------------------------------------------------

    @given(lambda self: self.world.alive)
    @rule(node=anyone)
    @step
    async def cut(self, world: World, node: int) -> None:
        """Reset what is open."""
        world.troubles.add("network")
        await pick(world.alive, node).network.cut()

    @given(lambda self: self.world.alive)
    @rule(node=anyone)
    @step
    async def refuse(self, world: World, node: int) -> None:
        """Reset what is open and take nothing new."""
        world.troubles.add("network")
        await pick(world.alive, node).network.refuse()

    @given(lambda self: self.world.alive)
    @rule(node=anyone, way=st.sampled_from(["both", "upwards", "downwards"]))
    @step
    async def hold(self, world: World, node: int, way: str) -> None:
        """A black hole, in one direction or both."""
        world.troubles.add("network")
        network = pick(world.alive, node).network
        network.hold(upwards=way != "downwards", downwards=way != "upwards")

    @given(lambda self: self.world.alive)
    @rule(node=anyone)
    @step
    async def mend(self, world: World, node: int) -> None:
        """Let everything through again."""
        network = pick(world.alive, node).network
        await network.accept()
        network.heal()

    # -- Redis -----------------------------------------------------------------------------

    @rule()
    @step
    async def flush(self, world: World) -> None:
        """FLUSHALL."""
        world.troubles.add("flush")
        world.raw.flushall()

    @rule()
    @step
    async def forget_scripts(self, world: World) -> None:
        """SCRIPT FLUSH."""
        world.troubles.add("scripts")
        world.raw.script_flush()

    @given(lambda self: self.world.calm)
    @rule(key=st.integers(0, 20), field=st.none() | st.integers(0, 3))
    @step
    async def harm(self, world: World, key: int, field: int | None) -> None:
        """Somebody removes something by hand, and it is repaired while nobody leaves."""
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
        await world.heal()
        if not world.alive:
            await world.start(NAMES[0])
        await world.within(self.recovery, *world.under_way)
        await asyncio.sleep(2 * world.timing.heartbeat)  # some harm is noticed only then
        await world.until(lambda: law.disagreement(world), self.recovery)
        world.troubles.clear()
        world.owners = {key: holders[0][0] for key, holders in law.held(world).items()}
        for client in world.attempts:
            law.check_attempt(world, client)
        world.attempts.clear()
        law.check_clients(world)

    def teardown(self) -> None:
        """In the end all is calm, every answer was true, and a clean stop leaves nothing."""
        with self.stack:
            try:
                if not self.broken:
                    self.runner.run(self.end(self.world))
            finally:
                self.runner.run(self.world.kill_all())

    async def end(self, world: World) -> None:
        """Heal, compare, stop."""
        await self.calm_down(world)
        assert not law.objection(world)
        law.check_messages(world)
        for node in world.alive:
            await world.stop(node)
        assert not world.backend.leaked(), world.backend.leaked()
