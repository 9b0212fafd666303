"""A connection's place in one namespace, from its claim until the end of its release.

The table maps namespace and id to memberships; a connection lists its own. The first is its *home*,
for which it was accepted; it may *join* more namespaces, each with a membership that can be lost
alone. Each join makes a new membership, so that an older one, whose release Redis has perhaps not
answered yet, is never mistaken for it. The connection of a user is also a member of the namespace
of that *person*, which no call names. In a process without a cluster there are no claims; all else
is the same.
"""

import asyncio
from typing import ClassVar, Generic, TypeVar

from cluster_pool.core.claims import Claim

C = TypeVar("C", covariant=True)
"""The type of the connection: a parameter, since the module of connections imports this one."""


class Departure:
    """The end of one membership: under way until its release was answered, then over.

    Attributes:
        namespace: that of the membership.
    """

    __slots__ = ("_decided", "_emptied", "_ended", "_error", "_over", "namespace")

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace
        self._emptied = self._ended = False
        self._error: Exception | None = None
        self._over: asyncio.Future[None] | None = None
        self._decided: asyncio.Future[None] | None = None

    @property
    def over(self) -> "asyncio.Future[None]":
        """Done when it is over; with BackplaneUnavailableError if Redis has never answered.

        It is made when it is first read: most departures of a storm are awaited by no task.
        """
        if self._over is None:
            self._over = asyncio.get_running_loop().create_future()
            self._tell()
        return self._over

    def end(self, emptied: bool) -> None:
        """It is over now; ``emptied`` tells whether it left the namespace without members."""
        if not self._ended:
            self._ended, self._emptied = True, emptied
            self._tell()

    def fail(self, error: Exception) -> None:
        """Redis will not answer the release any more."""
        if not self._ended:
            self._ended, self._error = True, error
            self._tell()

    def _tell(self) -> None:
        if not self._ended or self._over is None or self._over.done():
            return
        if self._error is None:
            self._over.set_result(None)
        else:
            self._over.set_exception(self._error)
            self._over.exception()  # read here, so that asyncio does not log it

    def doubt(self) -> None:
        """Whether it empties the namespace is found out after its end, by :meth:`decide`."""
        self._decided = asyncio.get_running_loop().create_future()

    def decide(self, emptied: bool) -> None:
        """It is known now whether it emptied the namespace."""
        if self._decided is not None and not self._decided.done():
            self._emptied = emptied
            self._decided.set_result(None)

    @property
    def undecided(self) -> "asyncio.Future[None] | None":
        """Done when it is known whether it emptied the namespace; None when that is known."""
        return None if self._decided is None or self._decided.done() else self._decided

    def pop_emptied(self) -> bool:
        """Whether it emptied the namespace; True only for the first call after that is known."""
        emptied, self._emptied = self._emptied, False
        return emptied


class Membership(Generic[C]):
    """One connection in one namespace under one id.

    Attributes:
        home: whether it is the one for which its connection was accepted.
        person: whether it is the one in the namespace of the connection's user.
        claim: as it is registered; None before it is won, and after it was released or lost.
        departure: None until it begins to depart.
    """

    __slots__ = ("_incarnation", "_nonce", "_time", "connection", "departure", "id", "namespace")

    home: ClassVar[bool] = True
    person: ClassVar[bool] = False

    def __init__(self, connection: C, namespace: str, id: str) -> None:
        self.connection = connection
        self.namespace = namespace
        self.id = id
        self.departure: Departure | None = None
        self._incarnation = self._nonce = ""
        self._time = 0

    @property
    def claim(self) -> Claim | None:
        """It is made when it is read: a tuple for each membership would cost 64 bytes, and the
        garbage collector would go through all of them."""
        if not self._nonce:
            return None
        return Claim(self._incarnation, self._time, self._nonce)

    @claim.setter
    def claim(self, claim: Claim | None) -> None:
        self._incarnation, self._time, self._nonce = claim or ("", 0, "")

    @property
    def claimed_at(self) -> int:
        """The time of its claim; 0 without one."""
        return self._time

    def depart(self) -> Departure:
        """Begin its departure, unless that has begun."""
        if self.departure is None:
            self.departure = Departure(self.namespace)
        return self.departure


class JoinedMembership(Membership[C]):
    """A membership beside the home of its connection. A class, since a slot would cost memory."""

    __slots__ = ()

    home = False


class PersonMembership(Membership[C]):
    """The membership of a user's connection in the namespace of that user.

    It is claimed before the home, under an id that no other connection has, and ends with the
    connection.
    """

    __slots__ = ()

    home = False
    person = True
