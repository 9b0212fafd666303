"""A connection's place in one namespace, from the claim that is made for it until it is over.

The table maps namespace and id to memberships; a connection lists its own, one for now, which is
its *home*. Each join makes a new one: what is left of an older one, such as a release that Redis
has not answered, cannot be mistaken for it. In one process there is no claim, and everything else
is the same.
"""

import asyncio
from typing import Generic, TypeVar

from cluster_pool.core.claims import Claim

C = TypeVar("C", covariant=True)
"""The connection; a parameter, so that connections can list their memberships."""


class Departure:
    """The end of one membership: under way until its release was answered, then over.

    Attributes:
        over: ends with it; with BackplaneUnavailableError where Redis was never heard.
    """

    __slots__ = ("_emptied", "over")

    def __init__(self) -> None:
        self._emptied = False
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def end(self, emptied: bool) -> None:
        """It is over now; ``emptied`` tells whether that left the namespace without members."""
        if not self.over.done():
            self._emptied = emptied
            self.over.set_result(None)

    def fail(self, error: Exception) -> None:
        """It will not be heard whether it is over."""
        if not self.over.done():
            self.over.set_exception(error)
            self.over.exception()  # taken note of, also when nobody waits for it

    def take_emptied(self) -> bool:
        """Whether it emptied the namespace; true for the first who asks once it is over."""
        emptied, self._emptied = self._emptied, False
        return emptied


class Membership(Generic[C]):
    """One connection in one namespace under one id.

    Attributes:
        claim: as the registry holds it; None before it is won, and when it is given up or lost.
        departure: None until it begins to end.
    """

    __slots__ = ("claim", "connection", "departure", "id", "namespace")

    def __init__(self, connection: C, namespace: str, id: str) -> None:
        self.connection = connection
        self.namespace = namespace
        self.id = id
        self.claim: Claim | None = None
        self.departure: Departure | None = None

    def depart(self) -> Departure:
        """Begin its end, unless that has begun."""
        if self.departure is None:
            self.departure = Departure()
        return self.departure
