"""A channel of a namespace that was interrupted: what is held of it until its past was read. Pure.

Messages of the namespace come over two channels: its own, where they have numbers, and, to single
members, that of the start that owns them. Both are published by one Redis in the order of their
positions, and heard over one socket; so what is held is in that order.
"""

from collections import deque
from typing import Any, Final, NamedTuple

from cluster_pool.backplane.inbox import Heard
from cluster_pool.core.envelope import BrokenEnvelopeError, pack, read_items
from cluster_pool.core.history import Position
from cluster_pool.core.numbers import NO_COUNTER, Counter
from cluster_pool.core.seals import BOUND, ROUTED

SEALED: Final = (BOUND, ROUTED)


class Place(NamedTuple):
    """How far a channel has come to the inbox: the mark and the position of the last message.

    Attributes:
        position: 0 behind none; None where no history is recorded.
    """

    epoch: str
    number: int
    position: int | None

    def is_behind(self, other: "Place") -> bool:
        """Whether it comes after another one."""
        return (int(self.epoch or 0), self.number) > (int(other.epoch or 0), other.number)

    def has(self, epoch: str, position: int) -> bool:
        """Whether the message with a position came before it, or is the one there; 0 for none."""
        return bool(position) and self.epoch == epoch and position <= (self.position or 0)

    def at_position(self, position: int) -> "Place":
        """The same number, where no message lies between."""
        return self._replace(position=max(position, self.position or 0))


class Held(NamedTuple):
    """A message that waits.

    Attributes:
        epoch, position: in the history of its namespace; 0 for none.
        targeted: whether it is for one member.
    """

    heard: Heard
    epoch: str
    position: int
    targeted: bool = False

    @classmethod
    def of(cls, heard: Heard) -> "Held":
        """One that was published to the namespace."""
        return cls(heard, heard.epoch, heard.position)


class Waiting:
    """A channel that was interrupted.

    Attributes:
        place: up to which all is in the inbox, or lost.
        held: what was heard since, and is not in the inbox.
        overflowed: held messages were dropped, and must be read.
        dropped: how many broadcasts, if they are not.
        lost: messages that have left the history.
        exact: whether that is exact.
        since: the time of Redis in ms.
        until, goal: the number and the position at which the channel stood when it was subscribed
            again, or of the last one that was dropped; what lies behind is held, or comes live.
        targets: whether some that were targeted at members may have been missed.
    """

    __slots__ = (
        "dropped",
        "exact",
        "goal",
        "held",
        "lost",
        "overflowed",
        "place",
        "since",
        "targets",
        "until",
    )

    def __init__(self, place: Place, since: int) -> None:
        self.place = place
        self.since = since
        self.held: deque[Held] = deque()
        self.overflowed = self.targets = False
        self.dropped = self.lost = self.until = self.goal = 0
        self.exact = True

    @property
    def size(self) -> int:
        """Bytes that are held."""
        return sum(one.heard.size for one in self.held)

    def has(self, one: Held) -> bool:
        """Whether its place is at a held message, or behind it."""
        return self.place.has(one.epoch, one.position)

    def pass_by(self, one: Held) -> None:
        """A held message is in the inbox: its place is there."""
        heard = one.heard
        if one.targeted:
            if one.epoch == self.place.epoch:
                self.place = self.place.at_position(one.position)
        elif heard.messages:
            self.place = Place(heard.epoch, heard.number, heard.position or None)

    def reach_for(self, number: int, position: int) -> None:
        """All up to here must be read."""
        self.until, self.goal = max(self.until, number), max(self.goal, position)

    def come_to(self, number: int, position: int) -> None:
        """All that has a lower number or position, and was not read, has left the history."""
        place = self.place
        self.lost += max(0, number - place.number)
        self.place = place._replace(number=max(number, place.number)).at_position(position)

    @property
    def follows(self) -> bool:
        """Whether the first broadcast that is held is the next one."""
        first = next((one.heard for one in self.held if not one.targeted), None)
        if first is None or self.overflowed:
            return False
        number = first.number - first.messages
        return first.epoch == self.place.epoch and number == self.place.number

    @property
    def unread(self) -> int:
        """How many broadcasts are known to lie between its place and what is held."""
        first = next((one.heard for one in self.held if one.heard.position), None)
        known = self.until if first is None else min(self.until, first.number - first.messages)
        return max(0, known - self.place.number)

    def before_held(self, place: Place) -> Place:
        """The place before the first held message that has a position; else ``place``."""
        for one in self.held:
            if one.position:
                count = one.heard.messages
                number = place.number if one.targeted else one.heard.number - count
                return Place(one.epoch, number, one.position - count)
        return place


def start_of(place: Place, counter: Counter) -> int | None:
    """The position behind which a channel goes on; None if no unbroken chain leads there."""
    if counter.epoch == place.epoch:
        return place.position
    if counter.former == (place.epoch, place.number):
        return 0  # the history has begun at the last message that was heard
    return 0 if place.epoch == NO_COUNTER and counter.former is None else None


def targets_in(heard: Heard) -> list[tuple[str, Held | None, bytes]]:
    """The items of an envelope for members of this process, each packed: the namespace of one that
    has a position in the history there, and what to hold of it; "" and None for any other.

    Raises:
        BrokenEnvelopeError: it cannot be read.
    """
    head = heard.payload[: heard.items_offset]
    found: list[tuple[str, Held | None, bytes]] = []
    for item in read_items(heard.payload[heard.items_offset :]):
        position = Position.parse(item[2]) if len(item) > 2 else None
        packed = pack(item)
        if position is None:
            found.append(("", None, packed))
            continue
        one = heard._replace(payload=head + packed, messages=1)
        found.append((_namespace_of(item[1]), Held(one, *position, targeted=True), packed))
    return found


def _namespace_of(item: list[Any]) -> str:
    """The namespace of a targeted item, which may be sealed."""
    try:
        inner = next(read_items(item[3])) if item[0] in SEALED else item
        return str(inner[1])
    except (LookupError, StopIteration, TypeError) as error:
        raise BrokenEnvelopeError("content") from error
