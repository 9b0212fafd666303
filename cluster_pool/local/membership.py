"""A connection's place in one namespace, from its claim until the end of its release.

The table maps namespace and id to memberships; a connection lists its own, one for now, which is
its *home*. Each join makes a new membership, so that an older one, whose release Redis has perhaps
not answered yet, is never mistaken for it. In a process without a cluster there are no claims; all
else is the same.
"""

import asyncio
from typing import Generic, TypeVar

from cluster_pool.core.claims import Claim

C = TypeVar("C", covariant=True)
"""The type of the connection: a parameter, since the module of connections imports this one."""


class Departure:
    """The end of one membership: under way until its release was answered, then over.

    Attributes:
        over: done when it is over; with BackplaneUnavailableError if Redis has never answered.
    """

    __slots__ = ("_emptied", "over")

    def __init__(self) -> None:
        self._emptied = False
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def end(self, emptied: bool) -> None:
        """It is over now; ``emptied`` tells whether it left the namespace without members."""
        if not self.over.done():
            self._emptied = emptied
            self.over.set_result(None)

    def fail(self, error: Exception) -> None:
        """Redis will not answer the release any more."""
        if not self.over.done():
            self.over.set_exception(error)
            self.over.exception()  # read here, so that asyncio does not log it

    def pop_emptied(self) -> bool:
        """Whether it emptied the namespace; True only for the first call after it is over."""
        emptied, self._emptied = self._emptied, False
        return emptied


class Membership(Generic[C]):
    """One connection in one namespace under one id.

    Attributes:
        claim: as it is registered; None before it is won, and after it was released or lost.
        departure: None until it begins to depart.
    """

    __slots__ = ("claim", "connection", "departure", "id", "namespace")

    def __init__(self, connection: C, namespace: str, id: str) -> None:
        self.connection = connection
        self.namespace = namespace
        self.id = id
        self.claim: Claim | None = None
        self.departure: Departure | None = None

    def depart(self) -> Departure:
        """Begin its departure, unless that has begun."""
        if self.departure is None:
            self.departure = Departure()
        return self.departure
