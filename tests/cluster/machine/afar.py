"""Rules about memberships that any node asks for; only in calm, where every answer is exact."""

from hypothesis import strategies as st
from hypothesis.stateful import rule

from cluster_pool import SendResult
from tests.cluster.machine import law
from tests.cluster.machine.infos import Infos
from tests.cluster.machine.steps import anyone, given, pick, step
from tests.cluster.machine.world import Client, World


class Afar(Infos):
    """Members that join and leave by the word of any node."""

    @given(lambda self: self.world.calm and self.hosts())
    @rule(
        node=anyone,
        member=anyone,
        namespace=st.sampled_from(["n", "m", "r"]),
        takeover=st.booleans(),
    )
    @step
    async def join_from_afar(
        self, world: World, node: int, member: int, namespace: str, takeover: bool
    ) -> None:
        """Have a member join a namespace besides; a second time it changes nothing."""
        home, by = pick(self.hosts(), member), pick(world.running, node)
        before = world.latest(home.connection, namespace)
        if before is not None and before.settled:
            assert await by.pool.join(*home.key, namespace) is SendResult.DELIVERED
            return
        owner = world.owners.get((namespace, home.key[1]))
        client = world.visit(home, namespace, takeover, by)
        await self.answered(client.attempt, None)
        assert client.joined == (takeover or owner is None), f"{client}, owner {owner}"
        if client.joined:
            await self.taken_over(world, owner, client)

    @given(lambda self: self.world.calm and self.guests())
    @rule(node=anyone, member=anyone)
    @step
    async def leave_from_afar(self, world: World, node: int, member: int) -> None:
        """Have a guest leave; it is told, and its connection stays."""
        guest, by = pick(self.guests(), member), pick(world.running, node)
        world.ends(guest)
        assert guest.home is not None
        assert await by.pool.leave(*guest.home.key, guest.key[0]) is SendResult.DELIVERED
        guest.gone = min(guest.gone, world.now)
        await world.until(lambda: law.not_told(guest), self.patience)
        assert guest.websocket.closed is None, guest

    def guests(self) -> list[Client]:
        """Members that have joined besides."""
        return [one for one in self.members() if one.home is not None]
