"""The parts of a running publisher: a backplane, and the parts that need no connections."""

import contextlib
from collections.abc import Collection

from cluster_pool.backplane.backplane import Backplane, Setup
from cluster_pool.backplane.shard import Shard
from cluster_pool.cluster.directory import ClusterDirectory
from cluster_pool.cluster.dispatcher import Dispatcher, Turn
from cluster_pool.cluster.histories import HistoryReading
from cluster_pool.cluster.life import in_turn
from cluster_pool.cluster.orders import NodeOrders
from cluster_pool.cluster.people import People
from cluster_pool.cluster.replies import Replies
from cluster_pool.cluster.revoking import Revoking
from cluster_pool.cluster.sending import Sending
from cluster_pool.cluster.unsealing import unsealing_of
from cluster_pool.cluster.watchers import Watchers
from cluster_pool.core.results import Gap
from cluster_pool.exceptions import BackplaneUnavailableError


class Publishing:
    """The parts of one start of a publisher."""

    def __init__(self, setup: Setup) -> None:
        self.over = False
        self.backplane = backplane = Backplane(setup, self, holds=False)
        self.loop = backplane.loop
        self.replies = Replies(backplane.identity)
        self.watchers = Watchers()
        self.sending = Sending(backplane, self.replies, None)
        self.people = People(backplane, self.sending)
        self.directory = ClusterDirectory(backplane, self.watchers)
        self.histories = HistoryReading(backplane)
        self.orders = NodeOrders(backplane, self.replies, None)
        self.revoking = Revoking(backplane, self.orders, None)
        unsealing = unsealing_of(backplane, None)
        self.dispatcher = Dispatcher(
            backplane, self.replies, self.watchers, unsealing, Turn(), None, None
        )

    async def start(self, wait: float | None) -> None:
        """Connect."""
        self.dispatcher.start()
        await self.backplane.start(wait)

    async def stop(self) -> None:
        """Disconnect; calls that wait fail."""
        try:
            await in_turn(self._forget_channel, self._close)
        finally:
            self.over = True

    async def _forget_channel(self) -> None:
        if self.backplane.shard.up:
            with contextlib.suppress(BackplaneUnavailableError):
                await self.backplane.leases.forget_channel(self.backplane.deadline(None))

    async def _close(self) -> None:
        await self.dispatcher.stop()
        self.replies.stop()
        self.watchers.stop()
        await self.backplane.stop()

    # -- observer of the backplane: a publisher ignores it ---------------------------------

    def up(self) -> None:
        """See :class:`BackplaneObserver`."""

    def down(self) -> None:
        """See :class:`BackplaneObserver`."""

    def part_up(self, shard: Shard) -> None:
        """See :class:`BackplaneObserver`."""

    def part_down(self, shard: Shard) -> None:
        """See :class:`BackplaneObserver`."""

    def moved(self, slots: Collection[int]) -> None:
        """See :class:`BackplaneObserver`."""

    def gap(self, gap: Gap) -> None:
        """See :class:`BackplaneObserver`."""
