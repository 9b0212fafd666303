"""A state machine over all that may happen to a cluster, against a model of who owns what.

``CLUSTER_POOL_EXAMPLES=500`` runs more of it, at random.
"""

import asyncio
import contextlib
import os
from collections.abc import Callable
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from cluster_pool import BackplaneUnavailableError, IdTakenError, SendResult
from cluster_pool.core.closing import TAKEN_OVER
from cluster_pool.exceptions import ConnectionClosedError, PoolClosedError
from cluster_pool.testing import FAST
from tests.cluster.machine import law
from tests.cluster.machine.loop import VirtualLoop
from tests.cluster.machine.network import FakeNetwork
from tests.cluster.machine.world import Client, World
from tests.clusters import Backend

EXAMPLES = int(os.environ.get("CLUSTER_POOL_EXAMPLES", "0"))
NAMES = ("a", "b", "c")
T = TypeVar("T")

anyone = st.integers(0, 2)
namespaces = st.sampled_from(["n", "m"])
ids = st.sampled_from(["x", "y", "z"])


def pick(candidates: list[T], number: int) -> T:
    """One of the candidates, of which there is at least one."""
    return candidates[number % len(candidates)]


def shifts(do: Callable[..., Any]) -> Callable[..., Any]:
    """Run the coroutine of a rule, and see that the law held."""

    def step(self: "Machine", **drawn: Any) -> None:
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

    step.__name__, step.__doc__ = do.__name__, do.__doc__
    return step


def some(what: str) -> Callable[..., Any]:
    """A rule's precondition: that the world has one of these."""
    return precondition(lambda self: bool(getattr(self.world, what)))


class Machine(RuleBasedStateMachine):
    """Up to three nodes on one server."""

    patience = 1.0
    """Seconds after which what was done in calm must show everywhere."""
    recovery = 30.0
    """Seconds after which all must be calm again."""

    def __init__(self) -> None:
        super().__init__()
        self.broken = False
        self.stack = contextlib.ExitStack()
        self.runner = self.open()
        self.stack.callback(self.world.close)

    def open(self) -> asyncio.Runner:
        """Make the world, and the loop in which it lives."""
        runner = self.stack.enter_context(asyncio.Runner(loop_factory=VirtualLoop))
        self.stack.enter_context(runner.get_loop().everywhere())  # type: ignore[attr-defined]
        self.world = World(Backend(None), FAST, fake_network)
        return runner

    @initialize()
    @shifts
    async def begin(self, world: World) -> None:
        """Two nodes."""
        for name in NAMES[:2]:
            await world.start(name)

    # -- members ---------------------------------------------------------------------------

    @some("running")
    @rule(node=anyone, namespace=namespaces, id=ids, takeover=st.booleans())
    @shifts
    async def join(self, world: World, node: int, namespace: str, id: str, takeover: bool) -> None:
        """Claim an id and wait for the answer."""
        calm, owner = world.calm, world.owners.get((namespace, id))
        client = world.join(pick(world.running, node), namespace, id, takeover)
        await world.within(10, client.attempt)
        self.answered(client)
        if calm:
            assert client.joined == (takeover or owner is None)
            if client.joined:
                world.owners[client.key] = client
                if owner is not None:
                    code, _ = await owner.websocket.wait_closed()
                    assert code == TAKEN_OVER

    def answered(self, client: Client) -> None:
        """An attempt has ended: was its answer true?"""
        error = None if client.attempt.cancelled() else client.attempt.exception()
        if isinstance(error, IdTakenError) and not client.takeover:
            law.check_taken(self.world, client)
        elif error is not None:
            allowed = BackplaneUnavailableError, IdTakenError, ConnectionClosedError
            assert isinstance(error, (*allowed, PoolClosedError)), error

    @precondition(lambda self: self.members())
    @rule(member=anyone)
    @shifts
    async def leave(self, world: World, member: int) -> None:
        """Release, and wait for the answer."""
        client, calm = pick(self.members(), member), world.calm
        task = world.leave(client)
        await world.within(10, task)
        if calm:
            if world.owners.get(client.key) is client:
                del world.owners[client.key]
                last = not any(key[0] == client.key[0] for key in world.owners)
                assert task.result() is last
        elif task.exception() is not None:
            assert isinstance(task.exception(), BackplaneUnavailableError)

    def members(self) -> list[Client]:
        """Who is, or was until taken over, a member of a node that runs."""
        return [one for one in self.world.clients if one.settled and one.node.running]

    # -- messages --------------------------------------------------------------------------

    @some("running")
    @rule(node=anyone, namespace=namespaces, id=ids, confirm=st.booleans())
    @shifts
    async def send(self, world: World, node: int, namespace: str, id: str, confirm: bool) -> None:
        """Send to one, and wait for the answer."""
        calm, owner = world.calm, world.owners.get((namespace, id))
        task = world.send(pick(world.running, node), namespace, id, confirm)
        await world.within(10, task)
        message = task.result()
        if calm:
            if owner is None:
                assert message.result is SendResult.ABSENT
            else:
                assert message.result in (SendResult.DELIVERED, SendResult.ROUTED)
                assert message.result is SendResult.DELIVERED or not confirm
                await world.until(lambda: "" if world.got(message) == [owner] else "lost", 5)

    @some("running")
    @rule(node=anyone, namespace=namespaces)
    @shifts
    async def broadcast(self, world: World, node: int, namespace: str) -> None:
        """Send to all, and wait for the answer."""
        calm = world.calm
        task = world.broadcast(pick(world.running, node), namespace)
        await world.within(10, task)
        message = task.result()
        if calm:
            all_of_it = {one for key, one in world.owners.items() if key[0] == namespace}
            assert message.result >= len({one.node for one in all_of_it})
            await world.until(lambda: "" if set(world.got(message)) == all_of_it else "lost", 5)

    # -- faults ----------------------------------------------------------------------------

    @rule()
    @shifts
    async def flush(self, world: World) -> None:
        """FLUSHALL."""
        world.troubles.add("flush")
        world.raw.flushall()

    @precondition(lambda self: self.world.troubles)
    @rule()
    @shifts
    async def settle(self, world: World) -> None:
        """Heal everything, and wait until all is calm."""
        await self.calm_down(world)

    async def calm_down(self, world: World) -> None:
        """From here on the model knows again who owns what."""
        await world.until(lambda: law.disagreement(world), self.recovery)
        world.troubles.clear()
        world.owners = {key: holders[0][0] for key, holders in law.held(world).items()}
        law.check_clients(world)

    @rule(seconds=st.floats(0, 5))
    @shifts
    async def wait(self, world: World, seconds: float) -> None:
        """Time passes."""
        await asyncio.sleep(seconds)

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
        assert world.backend.leaked() == []


async def fake_network(backend: Backend) -> FakeNetwork:
    """The network of one node on fakeredis."""
    assert backend.fake is not None
    return FakeNetwork(backend.fake)


def test_on_fakeredis() -> None:
    """Whatever happens, in whatever order."""
    run_state_machine_as_test(Machine, settings=some_examples(30, 25))


def some_examples(examples: int, steps: int) -> settings:
    """The same ones every time, or as many as the environment asks for, at random."""
    return settings(
        max_examples=EXAMPLES or examples,
        stateful_step_count=steps,
        derandomize=not EXAMPLES,
        database=None,
        print_blob=True,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
