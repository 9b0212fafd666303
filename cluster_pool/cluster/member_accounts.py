"""The account of one connection: up to where it has received the histories of its namespaces. Pure.

A client shows by its Pongs and its answer to a Close what its WebSocket stack has: all that was
written before. So for a member in a namespace with a history that is a *position*: what lies up to
it was sent to the member, or was not for it.
"""

from collections.abc import Callable, Iterable

from cluster_pool.core.claims import Claim
from cluster_pool.core.history import Position
from cluster_pool.local.connection import Connection
from cluster_pool.local.membership import Membership

Member = Membership[Connection]
Positions = dict[Member, Position]


class MemberAccount:
    """The positions of one connection; see :class:`.Account`.

    Attributes:
        bases: by membership, from where on it is sent everything.
        has: by membership, up to where it has received everything.
        starts: by membership, where its client may begin in future.
        parked: releases that wait for the end.
        is_over: whether nothing more will come of the client.
        recovered: see :attr:`.Connection.recovered`.
    """

    __slots__ = (
        *("_changed", "_reached", "bases", "has", "is_over"),
        *("parked", "recovered", "starts"),
    )

    def __init__(
        self, reached: dict[str, Position], changed: Callable[[Iterable[Member]], None]
    ) -> None:
        self._reached = reached
        self._changed = changed
        self.bases: Positions = {}
        self.has: Positions = {}
        self.starts: Positions = {}
        self.parked: list[Callable[[], None]] = []
        self.is_over = False
        self.recovered: bool | None = None

    def written(self) -> Positions:
        """The position of each membership: what this node has been given was written by now."""
        places = {}
        for member, base in self.bases.items():
            here = self._reached.get(member.namespace, base)
            places[member] = here if here.is_beyond(base) else base
        return places

    def take_back(self, member: Member, last: Position) -> None:
        """No position of a member behind ``last`` means what it did."""
        for positions in (self.bases, self.has):
            place = positions.get(member)
            if place is not None and place.epoch == last.epoch and place.is_beyond(last):
                positions[member] = last

    def closing(self, *, opened: bool) -> None:
        """See :class:`.Account`. Nobody hears that something is lost of one that never opens: so
        its position stays, and the next connection is told."""
        if self.recovered is False and not opened:
            self.bases.clear()
        spaces = {member.namespace for member in self.has}
        self._reached = {one: self._reached[one] for one in spaces if one in self._reached}

    def received(self, written: Positions | None) -> None:
        """See :class:`.Account`."""
        changed = []
        for member, place in (written or {}).items():
            if self.has.get(member, place) != place:
                self.has[member] = place
                changed.append(member)
        self._changed(changed)

    def over(self) -> None:
        """See :class:`.Account`. Where something was lost, the client has heard that."""
        self.is_over = True
        for member, base in self.bases.items() if self.recovered is False else ():
            if member in self.has and base.is_beyond(self.has[member]):
                self.has[member] = base
        parked, self.parked = self.parked, []
        for release in parked:
            release()


def mark_of(claim: Claim) -> str:
    """The time and nonce of a claim, which stay the same over rejoins."""
    return f"{claim.time}:{claim.nonce}"


class Once:
    """Calls a function once, however often it is called itself."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[[], None]) -> None:
        self._call: Callable[[], None] | None = call

    @property
    def is_done(self) -> bool:
        """Whether it was called."""
        return self._call is None

    def __call__(self) -> None:
        call, self._call = self._call, None
        if call is not None:
            call()
