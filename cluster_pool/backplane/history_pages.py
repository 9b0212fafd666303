"""A page of a history, as ``read_history.lua`` gives it."""

from typing import Any, Final, NamedTuple

from cluster_pool.core.history import Entry, History, Position, bounds_in

PAGE: Final = 200
"""Entries of a page at most."""
UNRECORDED: Final = History()
"""In place of the bounds of a history that is not recorded; it has no entries."""


class Page(NamedTuple):
    """A page of a history, and where the history stood when it was read.

    Attributes:
        position: of the last message; its epoch is "" if no history is recorded.
        history: the bounds that count.
        now: the time of Redis in ms.
        entries: those of its epoch that can be read, in the order asked for.
        more: where the next page begins; None if this is the last one.
        number: of the last broadcast; what is targeted at members has positions, too.
    """

    position: Position
    history: History
    now: int
    entries: list[Entry]
    more: str | None
    number: int = 0

    def ends_before(self, position: int) -> bool:
        """Whether all its entries lie before a position."""
        return not self.entries or self.entries[-1].header.position < position

    def is_held(self, entry: Entry, number: int) -> bool:
        """Whether the message with a number is within the bounds, which the stream exceeds."""
        return (
            number > self.position.number - self.history.messages
            and entry.time >= self.now - 1000 * self.history.seconds
        )


def page_in(reply: list[Any]) -> Page:
    """The page in a reply of ``read_history.lua``."""
    epoch, last, number, bounds, now, entries, more = reply
    position = Position(epoch.decode(), int(last or 0))
    history = bounds_in(bounds) if bounds else UNRECORDED
    read = [Entry.read(id, fields) for id, fields in entries]
    own = [one for one in read if one is not None and one.header.counter_epoch == position.epoch]
    following = f"({entries[-1][0].decode()}" if more and entries else None
    return Page(position, history, now, own, following, int(number or 0))
