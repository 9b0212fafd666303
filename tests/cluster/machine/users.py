"""Rules about users, who have several connections."""

import asyncio

from hypothesis import strategies as st
from hypothesis.stateful import rule

from cluster_pool.core.closing import NORMAL
from tests.cluster.machine import law
from tests.cluster.machine.rules import Rules, haste
from tests.cluster.machine.steps import anyone, given, pick, step
from tests.cluster.machine.world import World

users = st.sampled_from(["u", "v"])


class Users(Rules):
    """Messages, counts and kicks for all connections of a user."""

    @given(lambda self: self.world.running)
    @rule(node=anyone, user=users, haste=haste)
    @step
    async def send_user(self, world: World, node: int, user: str, haste: float | None) -> None:
        """Send to all connections of a user."""
        calm, due = world.calm, world.standing(user)
        task = world.send_user(pick(world.running, node), user)
        if await self.answered(task, haste) and calm:
            message = task.result()
            assert message.result.delivered == len(due), f"{message}, due {due}"
            await world.until(lambda: law.not_got(world, message, due), self.patience)

    @given(lambda self: self.world.calm and self.world.running)
    @rule(node=anyone)
    @step
    async def online(self, world: World, node: int) -> None:
        """Count the connections of both users."""
        online = await pick(world.running, node).pool.online(["u", "v"])
        assert online == {user: len(world.standing(user)) for user in ("u", "v")}

    @given(lambda self: self.world.running)
    @rule(node=anyone, user=users, haste=haste)
    @step
    async def kick(self, world: World, node: int, user: str, haste: float | None) -> None:
        """Close all connections of a user, and those of nobody else."""
        calm, due = world.calm, world.standing(user)
        task: asyncio.Task[int] = world.kick(pick(world.running, node), user)
        if await self.answered(task, haste) and calm:
            assert task.result() >= len({one.node for one in due})
            for one in due:
                world.ends(one)
            for one in due:
                await world.until(lambda one=one: law.not_closed(one, NORMAL), self.patience)  # type: ignore[misc]
