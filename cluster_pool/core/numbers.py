"""Accounting of message numbers: how many messages were missed.

The scripts that publish number the messages of each channel. Numbers that do not arrive were
missed; after an interruption the channel's counter says how many came after the last one heard.

**A counter belongs to the server that counts.** A replica that takes over may lack the newest
messages of its former primary, and would give their numbers to others. So the first message that
another server publishes on a channel begins a new epoch at 1, and the counter keeps the former
epoch and its last number as that server knew it. Hence numbers of one epoch never name two
messages, unless a server was restored from a snapshot.

**When a number is exact.** It is exact while one server counts, also over the begin of a history.
Across a change of the server it is exact for a channel that was heard to its end at the former one:
the server itself has ended the subscription, or confirmed its end after it had given the slot away.
Any other channel may have had messages that the former server took with it. Where the new server
knows no message that was not heard here, nothing is reported; else the number is a lower bound.
"""

import re
from collections.abc import Callable
from enum import IntEnum
from typing import Final, NamedTuple, Self

NO_COUNTER: Final = ""
UNREADABLE: Final = "?"
SHORTEST_LIFE: Final = 60_000_000
"""µs that a counter exists at least; an epoch is the Redis time of its beginning."""

FORMER: Final = re.compile(rb"(\d{1,17}) (\d{1,16})")
PLACE: Final = re.compile(rb"(\d{1,13})(?: \d+){4}")
"""The place in a history, behind the epoch."""

Mark = tuple[str, int]
"""Epoch and number of a message."""
UNKNOWN: Final[Mark] = (UNREADABLE, 0)
"""The mark of a channel whose counter could not be read, and of which nothing was heard since."""


class ServerChange(IntEnum):
    """The server that counts, since an interruption, as far as this process can know it."""

    SAME = 0
    """The same server has them, and has lost nothing."""
    MOVED = 1
    """A slot has brought them to another server; they may have been elsewhere meanwhile."""
    TAKEN_OVER = 2
    """Another server has them now, which may lack the newest."""
    LOST = 3
    """The server was restarted: it has an old state, or none."""


class Counter(NamedTuple):
    """The counter of a channel, as it was read.

    Attributes:
        epoch, number: of the last message; None and 0 without a counter, UNREADABLE for one that
            may be at another server.
        former: where the counter stood at the former server, as far as this server knew it, when
            the epoch began, or when a history began; None if it began by itself.
        position: of the last message in the history of a namespace; None if none is recorded.
    """

    epoch: str | None
    number: int
    former: Mark | None = None
    position: int | None = None

    @classmethod
    def read(cls, epoch: bytes | None, last: bytes | None, former: bytes | None = None) -> Self:
        """Read the fields of a hash; it has no counter if no script can have written them."""
        text, _, place = (epoch or b"").partition(b" ")
        if not text.isdigit():
            return cls(None, 0)
        found = FORMER.fullmatch(former or b"")
        number = int(last) if last is not None and last.isdigit() else 0
        mark = (found[1].decode(), int(found[2])) if found else None
        position = PLACE.fullmatch(place)
        return cls(text.decode(), number, mark, int(position[1]) if position else None)


class _Doubt:
    """A channel that was interrupted.

    Attributes:
        epoch, at: the last message heard of the epoch that was interrupted, also since then.
        missed: messages found missing since.
        ended: everything that the former server published was heard.
        moved: it is heard at another shard since.
        silent: nothing was heard since the last interruption.
        broken: the counter has gone back.
        change: of the server, as far as it is known while the counter could not be read.
        uncounted: it had no counter.
        earlier: messages that its counter counted before the first one heard, where it had none.
    """

    __slots__ = (
        "at",
        "broken",
        "change",
        "earlier",
        "ended",
        "epoch",
        "missed",
        "moved",
        "silent",
        "uncounted",
    )

    def __init__(self, last: Mark, *, ended: bool) -> None:
        self.epoch, self.at = last
        self.uncounted = self.epoch == NO_COUNTER
        self.earlier = 0
        self.missed = 0
        self.ended = ended
        self.moved = False
        self.silent = True
        self.broken = False
        self.change = ServerChange.SAME

    def heard(self, known: Mark, epoch: str, number: int, count: int) -> None:
        """``count`` messages have arrived, the last of which has ``number``."""
        self.silent = False
        if self.epoch == NO_COUNTER:
            self._first(epoch, number - count)
        if epoch == self.epoch:
            self._add(number - count - self.at)
            self.at = number
        elif _later(epoch, known[0]):
            self._add(number - count - (known[1] if epoch == known[0] else 0))
        else:
            self.broken = True

    def settle(self, known: Mark, counter: Counter, change: ServerChange, now: int) -> bool:
        """Add what is missing up to the counter; returns whether the sum is exact."""
        epoch, number, former = counter.epoch, counter.number, counter.former
        change = max(change, self.change)
        if self.moved:  # a successor of the shard that it came to may lack what was published there
            self.ended = self.ended and change <= ServerChange.MOVED
            change = max(change, ServerChange.MOVED)
        if epoch is None:
            if change and not self.ended and now - int(self.epoch or 0) < SHORTEST_LIFE:
                self.broken = True  # it cannot have expired: it was lost
            renewed = False
        else:
            if self.epoch == NO_COUNTER:
                self._first(epoch, number)
            if change is ServerChange.LOST:  # a counter of an old state, from before it expired
                self.earlier = 0
            renewed = self.uncounted and former is not None
            if epoch == self.epoch:
                self._go_on(number)
            elif _later(known[0] or "0", epoch) and known[0] != epoch:
                self.broken = True  # it was read before yet another server counted
            elif _later(epoch, self.epoch):
                renewed = True
                self.missed += max(0, number - (known[1] if epoch == known[0] else 0))
            elif self.silent:
                self.broken = True
        self.missed += self.earlier
        direct = renewed and former is not None and self._follow(former)
        if self.broken or change is ServerChange.LOST:
            return False
        if self.ended or (change > ServerChange.SAME and not self.missed):
            return direct or not renewed
        return change is ServerChange.SAME and (not renewed or (direct and not self.uncounted))

    def _first(self, epoch: str, earlier: int) -> None:
        """A channel without a counter has one, which stood at ``earlier`` before what is heard."""
        self.epoch, self.at, self.earlier = epoch, earlier, max(0, earlier)

    def _go_on(self, number: int) -> None:
        """The counter goes on, and is at ``number`` now."""
        if number >= self.at:
            self.missed += number - self.at
        elif self.silent and not self.ended:
            self.broken = True

    def _follow(self, former: Mark) -> bool:
        """Another server counted on from ``former``; returns whether that is what was heard."""
        epoch, number = former
        if epoch != self.epoch:
            self.missed += number if self.uncounted else 0
            return self.uncounted
        if number >= self.at:
            self.missed += number - self.at
        elif not self.ended:
            self.broken = True
        return True

    def _add(self, missed: int) -> None:
        if missed < 0:
            self.broken = True
        else:
            self.missed += missed


class Numbers:
    """The last number heard of each channel.

    Counting begins where the counter stood when a channel was subscribed. Messages that are heard
    before this is known tell nothing about those ahead of them: they may be of a subscription that
    has ended, and others were published since, for nobody here.

    Messages that :meth:`heard` and :meth:`resubscribed` find missing, and those dropped, add up
    until :meth:`take_missed`.
    """

    __slots__ = ("_doubtful", "_early", "_last", "_missed", "exact")

    def __init__(self) -> None:
        self._last: dict[str, Mark] = {}
        self._doubtful: dict[str, _Doubt | None] = {}
        """None for one of which nothing was heard since: 200,000 may be interrupted in one turn."""
        self._early: dict[str, Mark] = {}
        """The last message heard of each channel where counting has not begun."""
        self._missed: dict[str, int] = {}
        self.exact = True

    def heard(self, channel: str, epoch: str, number: int, count: int) -> None:
        """``count`` messages of ``channel`` have arrived, the last of which has ``number``.

        A counter that begins anew without an interruption has expired, was flushed, or is counted
        by another server; nothing was missed.
        """
        known = self._last.get(channel)
        if known is None:
            self._early[channel] = (epoch, number)
            return
        self._last[channel] = (epoch, number)
        if known == UNKNOWN:
            self._tell_unknown(channel)
            return
        if self._doubtful and channel in self._doubtful:
            doubt = self._doubtful[channel]
            if doubt is None:
                doubt = self._doubtful[channel] = _Doubt(known, ended=False)
            doubt.heard(known, epoch, number, count)
            return
        goes_on = known[0] in (epoch, NO_COUNTER)
        missed = number - count - (known[1] if goes_on else 0)
        if missed > 0:
            self._miss(channel, missed)
        elif goes_on and number < known[1]:
            self._last[channel] = known  # heard only after the counter had told of it

    def interrupted(self) -> None:
        """The subscriptions ended: :meth:`resubscribed` counts what they miss.

        Also those of an attempt to subscribe everything again, which failed.
        """
        self._early.clear()
        for doubt in filter(None, self._doubtful.values()):
            doubt.ended &= doubt.silent
            doubt.silent = True
        if len(self._doubtful) < len(self._last):
            self._doubtful = {**dict.fromkeys(self._last), **self._doubtful}

    def ended(self, channel: str) -> None:
        """The server has ended the subscription of ``channel``: what it had published was heard."""
        last = self._last.get(channel, UNKNOWN)
        if last != UNKNOWN and channel not in self._doubtful:
            self._doubtful[channel] = _Doubt(last, ended=True)

    def resubscribed(self, channel: str, counter: Counter, change: ServerChange, now: int) -> None:
        """``channel`` is subscribed again, and all up to its counter must have arrived.

        For a channel that was not known before, counting begins here. Where the counter cannot be
        read, what is known is told, as a lower bound; the rest when it is called again.

        Args:
            change: of the counters since the interruption.
            now: the Redis time in µs.
        """
        if self._last.get(channel, UNKNOWN) == UNKNOWN or channel not in self._doubtful:
            self._tell_unknown(channel)
            self.begin(channel, counter.epoch or NO_COUNTER, counter.number)
            return
        doubt = self._doubtful.pop(channel) or _Doubt(self._last[channel], ended=False)
        if counter.epoch == UNREADABLE:
            self._doubtful[channel] = doubt
            self._leave_open(channel, doubt, change)
            return
        exact = doubt.settle(self._last[channel], counter, change, now)
        last = self._last[channel]
        counted = counter.epoch is not None
        if counted and (doubt.silent or _place(counter[:2]) > _place(last)):
            self._last[channel] = (counter.epoch or NO_COUNTER, counter.number)
        self.exact &= exact
        if doubt.missed or not exact:
            self._miss(channel, doubt.missed)

    def _tell_unknown(self, channel: str) -> None:
        """After an interruption: it is not known where counting would have begun before it."""
        if channel in self._doubtful:
            del self._doubtful[channel]
            self.dropped(channel, 0, exact=False)

    def _leave_open(self, channel: str, doubt: _Doubt, change: ServerChange) -> None:
        """Tell what is known to be missed, and leave the rest for the next reading."""
        doubt.change = max(doubt.change, change)
        missed, doubt.missed = doubt.missed, 0
        self.dropped(channel, missed, exact=False)

    def begin_again(self, channel: str, epoch: str, number: int) -> None:
        """``channel`` is subscribed again, and nothing up to this mark is missed by its numbers."""
        self._doubtful.pop(channel, None)
        if _place((epoch, number)) > _place(self._last.get(channel, (NO_COUNTER, 0))):
            self._last[channel] = (epoch, number)

    def has_begun(self, channel: str) -> bool:
        """Whether it is known where counting began."""
        return self._last.get(channel, UNKNOWN) != UNKNOWN

    def begin(self, channel: str, epoch: str, number: int) -> None:
        """A new subscription: counting begins behind ``number``.

        With NO_COUNTER and 0 the channel had no counter yet: a new one begins at 1. With UNREADABLE
        and 0 counting begins behind the first message.
        """
        early = self._early.pop(channel, None)
        if self.has_begun(channel):
            return
        mark = (epoch, number)
        if early is not None and mark != UNKNOWN:
            mark = max(early, mark, key=_place)
        self._last[channel] = mark

    def forget(self, channel: str) -> None:
        """``channel`` is no longer subscribed."""
        self._early.pop(channel, None)
        self._last.pop(channel, None)
        self._doubtful.pop(channel, None)

    def hand_over(self, channel: str, other: "Numbers") -> None:
        """``channel`` is heard elsewhere from now on; :meth:`resubscribed` there counts the gap."""
        self._early.pop(channel, None)
        last = self._last.pop(channel, UNKNOWN)
        doubt = self._doubtful.pop(channel, None)
        if last != UNKNOWN:
            doubt = doubt or _Doubt(last, ended=False)
            doubt.moved = True
            other._last[channel], other._doubtful[channel] = last, doubt

    def dropped(self, channel: str, count: int, *, exact: bool = True) -> None:
        """``count`` messages arrived and were dropped, or are known to be missed."""
        self._miss(channel, count)
        self.exact &= exact

    def has_missed(self, channel: str) -> bool:
        """Whether messages of a channel were missed since :meth:`take_missed`, or perhaps."""
        return channel in self._missed

    def take_missed(self, left: Callable[[str], bool] | None = None) -> tuple[dict[str, int], bool]:
        """The messages missed since the last call, per channel, and whether that is exact.

        Args:
            left: the channels that are left for a later call. What is not exact may be theirs.
        """
        taken, exact = self._missed, self.exact
        self._missed, self.exact = {}, True
        if left is not None:
            self._missed = {one: count for one, count in taken.items() if left(one)}
            self.exact = exact or not self._missed
            taken = {one: count for one, count in taken.items() if one not in self._missed}
            exact = exact or not taken
        return taken, exact

    def _miss(self, channel: str, count: int) -> None:
        self._missed[channel] = self._missed.get(channel, 0) + count


def _later(epoch: str, other: str) -> bool:
    """Whether an epoch is not older than another one, by the times of their servers."""
    return int(epoch) >= int(other or 0)


def _place(mark: tuple[str | None, int]) -> tuple[int, int]:
    return -1 if mark[0] == UNREADABLE else int(mark[0] or 0), mark[1]
