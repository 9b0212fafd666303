"""How far this process has dealt with what it heard on each channel. Pure.

A message is known by a mark: the epoch of its channel's counter, and its number there. A counter
that expired or was evicted begins again at 1 under another epoch, so that numbers alone would make
what was published under the new epoch look as if it had been heard long ago.
"""

from typing import Final, NamedTuple


class Mark(NamedTuple):
    """Where a message stands on its channel."""

    epoch: str
    number: int

    @classmethod
    def parse(cls, value: bytes) -> "Mark":
        """Read ``epoch SP number``, as the publishing scripts give it."""
        epoch, number = value.split()
        return cls(epoch.decode(), int(number))


NOWHERE: Final = Mark("", 0)
"""Stands for no message; it is always passed."""


class Progress:
    """The last message of each channel that was dealt with, in the order of the channel.

    Attributes:
        dealing: whether something that was heard is being dealt with at the moment.
    """

    __slots__ = ("_at", "_before", "dealing")

    def __init__(self) -> None:
        self.dealing = False
        self._at: dict[str, Mark] = {}
        self._before: dict[str, str] = {}
        """The epoch before the present one, of the channels whose counter has begun again."""

    def reach(self, channel: str, epoch: str, number: int) -> None:
        """The message with this mark, and all before it, have been dealt with."""
        at = self._at.get(channel)
        if at is not None and at.epoch != epoch:
            self._before[channel] = at.epoch
        self._at[channel] = Mark(epoch, number)

    def passed(self, channel: str, mark: Mark) -> bool:
        """Whether the message with this mark has been dealt with.

        False for a mark of an epoch that was never reached, or of one before the last two.
        """
        if mark is NOWHERE:
            return True
        at = self._at.get(channel)
        if at is None:
            return False
        if at.epoch == mark.epoch:
            return at.number >= mark.number
        return self._before.get(channel) == mark.epoch

    def forget(self, channel: str) -> None:
        """The channel is no longer subscribed."""
        self._at.pop(channel, None)
        self._before.pop(channel, None)

    def begin_anew(self) -> None:
        """The subscriptions were interrupted: what was on its way is not heard any more."""
        self._at.clear()
        self._before.clear()
