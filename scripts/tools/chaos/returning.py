"""Plain clients that lose their connection in every way, and come back under their id.

They answer pings and Closes as their library does, and know nothing of positions. See
:mod:`tools.chaos.clients`, of which this is a part.
"""

import asyncio
import contextlib
import random

from tools.chaos import past
from tools.chaos.client import Client
from tools.chaos.coming import Visits

HOP, CUT = 0.3, 0.3
"""The parts of ends: another connection is opened while the former is open, or the former is cut
without a Close. In all other cases the client closes it."""
ANOTHER_USER = 0.15
"""The part of returns in which the id is another user's."""


class Returns(Visits):
    """Lets each client go and come back again and again; in the end all are there."""

    HERE = (0.5, 15.0)
    AWAY = ((0.0, 0.01), (0.1, 0.6), (0.5, 4.0))

    def __init__(self) -> None:
        super().__init__()
        self._ending = asyncio.Event()

    def go_on(self, yes: bool) -> None:
        """See :class:`Visits`; those who are away come back at once."""
        super().go_on(yes)
        if yes:
            self._ending.clear()
        else:
            self._ending.set()

    async def _visit(self, client: Client) -> None:
        while True:
            await asyncio.sleep(random.uniform(*self.HERE))
            await self._going_on.wait()
            if not client.open:
                continue
            self._under_way += 1
            try:
                await self._return(client)
            finally:
                self._under_way -= 1

    async def _return(self, client: Client) -> None:
        chance = random.random()
        if chance >= HOP + CUT:
            await client.leave()
        elif chance >= HOP:
            await client.cut()
        if chance >= HOP:
            with contextlib.suppress(TimeoutError):
                pause = random.uniform(*random.choice(self.AWAY))
                await asyncio.wait_for(self._ending.wait(), pause)
        users = past.users(client.id) if past.has_users(client.namespace) else [""]
        if client.user not in users or random.random() < ANOTHER_USER:
            client.user = random.choice(users)
        client.move()
