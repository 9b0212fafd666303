"""Accounting of message numbers: how many messages were missed.

The scripts that publish number the messages of each channel. Numbers that do not arrive were
missed; after an interruption the channel's counter says how many came after the last one heard. A
Redis that lost its state may have lost counts with it: then the sum is a lower bound.
"""

NO_COUNTER = ""


class Numbers:
    """The last number heard of each channel.

    Messages that :meth:`heard` and :meth:`resubscribed` find missing, and those dropped, add up
    until :meth:`take_missed`.
    """

    __slots__ = ("_doubtful", "_last", "_missed", "exact")

    def __init__(self) -> None:
        self._last: dict[str, tuple[str, int]] = {}
        self._doubtful: dict[str, tuple[str, int]] = {}
        self._missed: dict[str, int] = {}
        self.exact = True

    def heard(self, channel: str, epoch: str, number: int, count: int) -> None:
        """``count`` messages of ``channel`` have arrived, the last of which has ``number``.

        A counter that begins anew without an interruption has expired or was flushed, and nothing
        was missed.
        """
        known = self._last.get(channel)
        self._last[channel] = (epoch, number)
        if known is None:
            return
        goes_on = known[0] in (epoch, NO_COUNTER)
        missed = number - count - (known[1] if goes_on else 0)
        if channel in self._doubtful and (missed < 0 or not goes_on):
            self._lost_counter(channel, max(0, missed))
        elif missed > 0:
            self._miss(channel, missed)
        elif goes_on and number < known[1]:
            self._last[channel] = known  # heard only after the counter had told of it

    def interrupted(self) -> None:
        """The subscriptions ended: :meth:`resubscribed` counts what they miss."""
        self._doubtful = {**self._last, **self._doubtful}

    def resubscribed(self, channel: str, epoch: str | None, number: int, *, lost: bool) -> None:
        """The counter of ``channel`` stands at ``number``, and all up to it must have arrived.

        For a channel that was not known before, counting begins here.

        Args:
            epoch: None when the channel has no counter.
            lost: Redis may have lost its state since the interruption.
        """
        before = self._doubtful.pop(channel, None)
        if before is None:
            self.begin(channel, epoch or NO_COUNTER, number)
            return
        known = self._last[channel]
        if epoch is None:
            epoch, number = known
        goes_on = before[0] in (epoch, NO_COUNTER) and number >= before[1]
        missed = max(0, number - (known[1] if known[0] in (epoch, NO_COUNTER) else 0))
        if lost or not goes_on:
            self._lost_counter(channel, missed)
        elif missed:
            self._miss(channel, missed)
        silent = known is before  # not only equal: a restored counter reaches a number twice
        if missed or silent:
            self._last[channel] = (epoch, number)

    def begin(self, channel: str, epoch: str, number: int) -> None:
        """A new subscription: counting begins behind ``number``.

        With NO_COUNTER and 0 the channel had no counter yet: a new one begins at 1.
        """
        self._last.setdefault(channel, (epoch, number))

    def forget(self, channel: str) -> None:
        """``channel`` is no longer subscribed."""
        self._last.pop(channel, None)
        self._doubtful.pop(channel, None)

    def hand_over(self, channel: str, other: "Numbers") -> None:
        """``channel`` is heard elsewhere from now on; :meth:`resubscribed` there counts the gap."""
        last = self._last.pop(channel, None)
        before = self._doubtful.pop(channel, last)
        if last is not None and before is not None:
            other._last[channel] = last
            other._doubtful[channel] = before

    def dropped(self, channel: str, count: int) -> None:
        """``count`` messages arrived and were dropped."""
        self._miss(channel, count)

    def take_missed(self) -> tuple[dict[str, int], bool]:
        """The messages missed since the last call, per channel, and whether that is exact."""
        taken = self._missed, self.exact
        self._missed, self.exact = {}, True
        return taken

    def _miss(self, channel: str, count: int) -> None:
        self._missed[channel] = self._missed.get(channel, 0) + count

    def _lost_counter(self, channel: str, at_least: int) -> None:
        self.exact = False
        self._miss(channel, at_least)
