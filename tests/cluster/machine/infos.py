"""Rules about what others see of members."""

import asyncio

from hypothesis import strategies as st
from hypothesis.stateful import rule

from tests.cluster.machine.rules import haste
from tests.cluster.machine.steps import anyone, given, pick, step
from tests.cluster.machine.users import Users
from tests.cluster.machine.world import Client, World


class Infos(Users):
    """Infos that come and go; the registry has them, whenever it agrees with the pools."""

    @given(lambda self: self.open_members())
    @rule(member=anyone, info=st.sampled_from([None, 1, {"name": "Zoë"}]), haste=haste)
    @step
    async def inform(self, world: World, member: int, info: object, haste: float | None) -> None:
        """Replace the info of a member, at home or as a guest."""
        calm, told = world.calm, pick(self.open_members(), member)
        task: asyncio.Task[bool] = world.inform(told, info)
        if await self.answered(task, haste) and calm:
            assert task.result(), f"no info of {told}"
            node = pick(world.running, member + 1)
            seen = await node.pool.locate(*told.key)
            assert seen is not None
            assert (seen.user, seen.info) == (told.user, info)

    def open_members(self) -> list[Client]:
        """Members whose connection was not closed since they came."""
        return [one for one in self.members() if not one.websocket.closed]
