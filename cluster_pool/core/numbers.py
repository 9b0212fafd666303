"""Accounting of envelope numbers: what was heard, and how much was not.

The script that publishes numbers each envelope of a channel. A hole in what arrives is what was
missed; after an interruption the channel's counter says how many came after the last one heard.
"""

NO_COUNTER = ""


class Numbers:
    """The last number heard of each channel.

    Holes found by :meth:`heard` and :meth:`settle` gather until :meth:`take_missed`.
    """

    __slots__ = ("_last", "_missed", "exact")

    def __init__(self) -> None:
        self._last: dict[str, tuple[str, int]] = {}
        self._missed: dict[str, int] = {}
        self.exact = True

    def heard(self, channel: str, epoch: str, number: int) -> None:
        """Envelope ``number`` of ``channel`` has arrived."""
        last = self._last.get(channel)
        if last is not None:
            if last[0] not in (epoch, NO_COUNTER):
                self._lost_counter(channel, number - 1)
            elif number <= last[1]:
                return
            elif number > last[1] + 1:
                self._miss(channel, number - last[1] - 1)
        self._last[channel] = (epoch, number)

    def settle(self, channel: str, epoch: str, number: int) -> None:
        """The counter of ``channel`` stands at ``number``, and all up to it must have arrived.

        For a channel of which nothing was heard before, this is where counting begins.
        """
        last = self._last.get(channel)
        if last is not None:
            if last[0] not in (epoch, NO_COUNTER):
                self._lost_counter(channel, number)
            elif number <= last[1]:
                return
            else:
                self._miss(channel, number - last[1])
        self._last[channel] = (epoch, number)

    def begin(self, channel: str, epoch: str, number: int) -> None:
        """A new subscription: what was published up to ``number`` is none of its business.

        With NO_COUNTER and 0 the channel had no counter yet: whichever comes begins at 1.
        """
        self._last.setdefault(channel, (epoch, number))

    def forget(self, channel: str) -> None:
        """``channel`` is no longer subscribed."""
        self._last.pop(channel, None)

    def last(self, channel: str) -> int:
        """The number last heard of ``channel``, 0 when none was."""
        last = self._last.get(channel)
        return last[1] if last else 0

    def take_missed(self) -> tuple[dict[str, int], bool]:
        """What was missed since the last call, per channel, and whether the numbers are exact."""
        taken = self._missed, self.exact
        self._missed, self.exact = {}, True
        return taken

    def _miss(self, channel: str, count: int) -> None:
        self._missed[channel] = self._missed.get(channel, 0) + count

    def _lost_counter(self, channel: str, at_least: int) -> None:
        self.exact = False
        self._miss(channel, at_least)
