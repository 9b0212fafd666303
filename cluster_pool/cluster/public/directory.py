"""The public calls that read the cluster; :class:`ClusterDirectory` does the work."""

import contextlib
from collections.abc import AsyncIterator

from cluster_pool.cluster.presence import Presence
from cluster_pool.cluster.public.handle import Calls
from cluster_pool.core.history import HistoryMessage
from cluster_pool.core.results import Member, MemberEvent, Node, UserEvent


class DirectoryCalls(Calls):
    """Members, nodes and namespaces of the whole cluster."""

    async def count(self, namespace: str, *, timeout: float | None = None) -> int:
        """The number of members of a namespace in the cluster, without those of dead nodes."""
        return await self._running().directory.count(namespace, timeout)

    async def members(
        self, namespace: str, *, timeout: float | None = None
    ) -> AsyncIterator[Member]:
        """The members of a namespace, read in pages, so that no reply is huge.

        A member that joins or leaves meanwhile may or may not be seen, and an id may come twice
        while Redis resizes its table (as HSCAN documents). A member that stays is always seen,
        also when its node rejoins meanwhile.

        Args:
            timeout: seconds for each page; default 2.
        """
        async for member in self._running().directory.members(namespace, timeout):
            yield member

    async def namespaces(self, *, timeout: float | None = None) -> list[str]:
        """The namespaces that have members, sorted.

        It reads the counts of all namespaces that may have some, 500 in a round trip; ``timeout``
        is for the whole call.
        """
        return await self._running().directory.namespaces(timeout)

    async def nodes(self, *, timeout: float | None = None) -> list[Node]:
        """The live nodes, sorted by id; each comes once, also while it rejoins."""
        return await self._running().directory.nodes(timeout)

    async def locate(
        self, namespace: str, id: str, *, timeout: float | None = None
    ) -> Member | None:
        """The member with an id and the node that owns it; None when no living node does."""
        return await self._running().directory.locate(namespace, id, timeout)

    async def position(self, namespace: str, *, timeout: float | None = None) -> str:
        """The place of the last message in the history of a namespace; "" if it has none.

        All that is sent after this is behind it: read it before your own data, and a client that
        has both misses nothing.
        """
        return await self._running().histories.position(namespace, timeout)

    async def history(
        self,
        namespace: str,
        *,
        last: int = 50,
        as_id: str | None = None,
        user: str | None = None,
        timeout: float | None = None,
    ) -> list[HistoryMessage]:
        """The last broadcasts of a namespace, the oldest first, from any process.

        Only namespaces with a history have some: see :class:`History`. Messages to single members
        and plain PUBLISHes are not among them.

        Args:
            last: how many at most, 1 to 10,000.
            as_id, user: leave those out that excluded this id or this user, as for a member that
                shall see them; None: all are read.

        Raises:
            BackplaneUnavailableError: Redis did not answer in time.
        """
        return await self._running().histories.latest(namespace, last, as_id, user, timeout)

    @contextlib.asynccontextmanager
    async def watching(self, namespace: str) -> AsyncIterator[AsyncIterator[MemberEvent]]:
        """Joins, updates and leaves of a namespace, from the moment this is entered.

        The events are those of :meth:`watch`. :meth:`presence` keeps a list of the members right.
        To do that yourself, read it after entering this, and again after each ``"lost"``::

            async with pool.watching("room") as events:
                members = {member.id: member.node async for member in pool.members("room")}
                async for event in events:
                    if event.event == "leave":
                        members.pop(event.id, None)
                    elif event.event != "lost":
                        members[event.id] = event.node
                    else:
                        members = {member.id: member.node async for member in pool.members("room")}

        If a reading fails, try again until it succeeds: ``"lost"`` does not come a second time.

        Raises:
            BackplaneUnavailableError: Redis did not confirm the subscription in time.
        """
        async with self._running().directory.watching(namespace) as events:
            yield events

    async def watch(self, namespace: str) -> AsyncIterator[MemberEvent]:
        """Joins and leaves of a namespace, and updates of infos, as they happen.

        Events come in the order of the registry, each at most once. A takeover is a join with the
        new node, and so is a claim that a node had to register again. Users and infos come with the
        events of the members that have some. If events were lost, or may
        have been (the connection to Redis was interrupted, Redis lost its state, this reader is
        10,000 events behind), one event ``"lost"`` comes in their place: read the members again.
        It is counted (``watch_losses``). While Redis is away no events come; ``"lost"`` comes when
        it is back. To miss nothing from a known moment on, use :meth:`watching`, which also shows
        how to keep a list of members.

        Raises:
            PoolClosedError: it was stopped.
        """
        async with self.watching(namespace) as events:
            async for event in events:
                yield event

    @contextlib.asynccontextmanager
    async def presence(self, namespace: str, *, every: float = 1.0) -> AsyncIterator[Presence]:
        """The members of a namespace, with users and infos, and then the changes in them.

        ::

            async with pool.presence("room:7") as presence:
                await send_list(presence.members)  # {id: Member}
                async for changes in presence:
                    await send_changes(changes.joined, changes.updated, changes.left)

        Nothing is missed between the two. ``members`` follows the changes, also where events were
        lost: see :class:`Presence`. Redis is read when this is entered, page by page, and after a
        loss; at other times only events come.

        Args:
            every: seconds from one yield of changes to the next, at least; 0 for none.

        Raises:
            BackplaneUnavailableError: Redis did not answer in time.
        """
        async with self._running().directory.presence(namespace, every) as presence:
            yield presence

    async def watch_users(self, namespace: str, *, grace: float = 5.0) -> AsyncIterator[UserEvent]:
        """Users who come to a namespace, and who leave it: each once.

        A user comes with the first connection and leaves with the last one, also if a node dies
        with it: then when its members are removed, a second or two after the end of its lease.
        Those who are there when this begins have come already. Members without a user do not count.

        Args:
            grace: seconds within which the user may come back, as a tab does that is reloaded,
                without having left; 0 for none.

        Raises:
            BackplaneUnavailableError: Redis did not answer in time, at the beginning.
            PoolClosedError: it was stopped.
        """
        async for event in self._running().directory.watch_users(namespace, grace):
            yield event
