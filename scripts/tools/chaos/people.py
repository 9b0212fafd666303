"""The comparison of users when all is quiet, at every node, in Redis and at the publisher.

Called by the runner. The standing connections are what nodes hold; the registry, ``online`` and the
namespaces of users must agree with them, a message and a kick reach all of a user and nobody else,
and what was revoked opens no door.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from tools.chaos.ledger import Ledger
from tools.chaos.place import Place
from tools.chaos.visits import ALL_HOUSES, ALL_USERS, KICKED, MOST, Row, house_of
from tools.harness.internals import Keys

PATIENCE = 10.0
"""Seconds until all must agree."""
LOOK = 0.2
PROBES = 4
"""Users, and revoked tokens, that are tried at every node."""


class People:
    """Compares users; ``redis`` gives the raw reply to a command.

    Args:
        places: of nodes.
        outside: of a publisher.
    """

    def __init__(
        self,
        places: Sequence[Place],
        outside: Place,
        redis: Callable[..., str],
        ledger: Ledger,
        seed: int,
    ) -> None:
        self._places = places
        self._outside = outside
        self._redis = redis
        self._ledger = ledger
        self._random = random.Random(seed)
        self._messages = 0

    async def failures(self) -> tuple[int, list[str]]:
        """How many connections of users stand, and the rules that are broken, in words."""
        standing, wrong = await self._compared()
        if not wrong:
            wrong = await self._probe_doors(standing)
        if not wrong:
            user = self._random.choice(ALL_USERS)
            wrong = [*await self._message(user, standing), *await self._kick(user, standing)]
        return len(standing), wrong

    # -- what is there -----------------------------------------------------------------------

    async def _compared(self) -> tuple[set[Row], list[str]]:
        """The standing connections, when all agree on them, and what is wrong in the end."""
        deadline = time.monotonic() + PATIENCE
        while True:
            standing = await self._standing()
            wrong = [*await self._differences(standing), *self._revoked_ones(standing)]
            if not wrong or time.monotonic() > deadline:
                return standing, wrong
            await asyncio.sleep(LOOK)

    async def _standing(self) -> set[Row]:
        return {_row(one) for one in await self._all("standing")}

    async def _all(self, do: str, **fields: object) -> list[list[str]]:
        """The answers of all nodes together."""
        asked = [place.program.ask(do, **fields) for place in self._places]
        return [one for said in await asyncio.gather(*asked) for one in said]

    async def _differences(self, standing: set[Row]) -> list[str]:
        held = {one[:5] for one in standing}
        said = await self._places[0].program.ask("registered_people", houses=ALL_HOUSES)
        registry = {tuple(one) for one in said}
        wrong = [
            f"{'/'.join(one)} is {'not registered' if one in held else 'a ghost'}"
            for one in sorted(held ^ registry)
        ]
        counts = Counter(one[3] for one in standing)
        online = await self._outside.program.ask("online", users=ALL_USERS)
        wrong += [
            f"{online[user]} connections of {user} are online, {counts[user]} stand"
            for user in ALL_USERS
            if online[user] != counts[user]
        ]
        return wrong + await self._ghosts() + await self._arrivals(standing)

    async def _arrivals(self, standing: set[Row]) -> list[str]:
        """Users of the first house of whom a watcher knows something else."""
        there = {one[3] for one in standing if one[0] == house_of(0)}
        return [
            f"{user} is {'there' if known else 'gone'} to the watcher at {place.node}"
            for place in self._places
            for user, known in (await place.program.ask("arrivals")).items()
            if known != (user in there)
        ]

    async def _ghosts(self) -> list[str]:
        """The members that the namespace of a user has in Redis alone, or at its node alone."""
        held = {(user, id) for user, id in await self._all("held_of_users")}
        registered = await asyncio.to_thread(self._registered_of_users)
        return [
            f"{id} of {user} is {'not registered' if (user, id) in held else 'a ghost'}"
            for user, id in sorted(held ^ registered)
        ]

    def _registered_of_users(self) -> set[tuple[str, str]]:
        names = {user: Keys().members(f"~user:{user}") for user in ALL_USERS}
        return {
            (user, id) for user, key in names.items() for id in _words(self._redis("HKEYS", key))
        }

    def _revoked_ones(self, standing: set[Row]) -> Iterator[str]:
        for *words, token in sorted(standing):
            if token in self._ledger.revoked:
                yield f"{'/'.join(words)} stands, and {token} is revoked"

    # -- what is done ------------------------------------------------------------------------

    async def _probe_doors(self, standing: set[Row]) -> list[str]:
        """Users at their limit and revoked tokens are refused at every node, and others are not."""
        counts = Counter(one[3] for one in standing)
        some = self._random.sample(ALL_USERS, PROBES)
        expected = [(one, "", "limit" if counts[one] >= MOST else "accepted") for one in some]
        revoked = sorted(self._ledger.revoked)
        some = self._random.sample(revoked, min(PROBES, len(revoked)))
        expected += [(one.split("/")[0], one, "revoked") for one in some]
        wrong = []
        for place in self._places:
            for user, token, due in expected:
                got = await place.program.ask("attempt", user=user, token=token or "unrevoked")
                if got != due:
                    about = f"{user}, who has {counts[user]}, by token {token!r}"
                    wrong.append(f"{place.node}: {about}: {got}, not {due}")
        return wrong

    async def _message(self, user: str, standing: set[Row]) -> list[str]:
        """A message to a user reaches all of the user, and is answered so."""
        self._messages += 1
        text = f"{user} runner {self._messages}"
        told = await self._outside.program.ask("send_user", user=user, text=text)
        due = sorted([*one[:2]] for one in standing if one[3] == user)
        heard = sorted(await self._all("heard_by_users", text=text))
        if heard == due and told == len(due):
            return []
        return [f"{told} of {user} were told to have a message, {heard} heard it, due were {due}"]

    async def _kick(self, user: str, standing: set[Row]) -> list[str]:
        """A kick reaches all of a user, and nobody else."""
        await self._outside.program.ask("close_user", user=user, code=KICKED)
        due = {one for one in standing if one[3] != user}
        deadline = time.monotonic() + PATIENCE
        while True:
            now = await self._standing()
            if now == due:
                wrong = await self._differences(now)
            else:
                wrong = [f"{one} after a kick of {user}" for one in sorted(now ^ due)]
            if not wrong or time.monotonic() > deadline:
                return wrong
            await asyncio.sleep(LOOK)


def _row(words: Sequence[str]) -> Row:
    house, id, node, user, info, token = words
    return house, id, node, user, info, token


def _words(reply: str) -> list[str]:
    """The strings of an array in Redis's own words."""
    return reply.split("\r\n")[2::2]
