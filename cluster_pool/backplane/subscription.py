"""One reference to a channel, which its holder ends."""

from collections.abc import Iterable
from typing import Protocol

from cluster_pool.backplane.calls import Deadline


class Owner(Protocol):
    """Subscribes the channels of subscriptions: :class:`Subscriptions`, or those of a cluster."""

    async def confirm(self, channel: str, deadline: Deadline) -> None:
        """See :meth:`Subscription.confirmed`."""

    def drop(self, channels: Iterable[str]) -> None:
        """Drop one reference to each channel."""


class Subscription:
    """One reference to a channel, from :meth:`Subscriptions.add` until :meth:`end`.

    It outlives generations: each new one subscribes the channel again, and counts what was missed.
    """

    __slots__ = ("channel", "ended", "owner")

    def __init__(self, owner: "Owner", channel: str) -> None:
        self.owner = owner
        self.channel = channel
        self.ended = False

    async def confirmed(self, deadline: Deadline) -> None:
        """Wait until Redis has confirmed it: what is published after this returns is heard.

        When a generation ends meanwhile, this waits for the next one.

        Raises:
            BackplaneUnavailableError: not confirmed by ``deadline`` (None: there is none), or
                Redis refused. The channel stays wanted all the same.
        """
        await self.owner.confirm(self.channel, deadline)

    def end(self) -> None:
        """Drop this reference. A second call does nothing."""
        end_all((self,))


def end_all(subscriptions: Iterable[Subscription]) -> None:
    """Drop several references; channels of one Redis are unsubscribed in few commands."""
    channels: dict[Owner, list[str]] = {}
    for one in subscriptions:
        if not one.ended:
            one.ended = True
            channels.setdefault(one.owner, []).append(one.channel)
    for owner, names in channels.items():
        owner.drop(names)
