"""How far this process has handled what it heard on each channel. Pure.

A message has a mark: the epoch of its channel's counter, and its number there. A counter that
expired or was evicted begins again at 1 under another epoch. By numbers alone, messages of the new
epoch would look as if they had been handled long ago.
"""

from collections.abc import Callable
from typing import Final, NamedTuple


class Mark(NamedTuple):
    """The place of a message on its channel."""

    epoch: str
    number: int

    @classmethod
    def parse(cls, value: bytes) -> "Mark":
        """Read ``epoch SP number``, as the publishing scripts return it."""
        epoch, number = value.split()
        return cls(epoch.decode(), int(number))


NOWHERE: Final = Mark("", 0)
"""The mark of no message; it is always passed."""


class Progress:
    """The last message of each channel that was handled, in the order of the channel.

    Attributes:
        dealing: whether something that was heard is being handled at the moment.
    """

    __slots__ = ("_at", "_before", "dealing")

    def __init__(self) -> None:
        self.dealing = False
        self._at: dict[str, Mark] = {}
        self._before: dict[str, str] = {}
        """The epoch before the present one, of the channels whose counter has begun again."""

    def reach(self, channel: str, epoch: str, number: int) -> None:
        """The message with this mark, and all before it, have been handled."""
        at = self._at.get(channel)
        if at is not None and at.epoch != epoch:
            self._before[channel] = at.epoch
        self._at[channel] = Mark(epoch, number)

    def passed(self, channel: str, mark: Mark) -> bool:
        """Whether the message with this mark has been handled.

        False for a mark of an epoch that was never reached, or older than the last two.
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

    def begin_anew(self, interrupted: Callable[[str], bool]) -> None:
        """Some channels were interrupted: messages under way there will not be heard."""
        for channel in [one for one in self._at if interrupted(one)]:
            self.forget(channel)
