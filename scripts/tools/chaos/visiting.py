"""The commands of a node that concern its users."""

from cluster_pool import ClusterPool
from tools.chaos.roaming import info_of
from tools.chaos.visits import Row, Visits


class Visiting:
    """Answers what :mod:`tools.chaos.people` asks."""

    def __init__(self, pool: ClusterPool) -> None:
        self._pool = pool
        self._visits = Visits(pool)

    async def visit(self, rate: float) -> None:
        """Let users come and go, so many steps a second."""
        self._visits.begin(rate)

    async def standing(self) -> list[Row]:
        """Let them stay where they are; gives each standing connection."""
        await self._visits.settle()
        return self._visits.held()

    async def held_of_users(self) -> list[tuple[str, str]]:
        """The user and the id of each membership in a namespace of a user."""
        return self._visits.held_of_users()

    async def heard_by_users(self, text: str) -> list[tuple[str, str]]:
        """The house and the id of each connection that has heard a message."""
        return self._visits.heard(text)

    async def arrivals(self) -> dict[str, bool]:
        """Whether each user is there who has come to the first house or left it."""
        return self._visits.arrivals.known()

    async def registered_people(self, houses: list[str]) -> list[tuple[str, str, str, str, str]]:
        """The members of houses as the registry has them."""
        return [
            (house, one.id, one.node, one.user or "", info_of(one.info))
            for house in houses
            async for one in self._pool.members(house)
        ]

    async def attempt(self, user: str, token: str) -> str:
        """Whether a user is accepted here by a token."""
        return await self._visits.attempt(user, token)

    def _held(self) -> int:
        """How many connections stand; each has a task."""
        return self._visits.standing

    async def _stop(self) -> None:
        await self._visits.stop()
