"""The public calls about users, who may have several connections; :class:`People` does the work."""

from collections.abc import Iterable

from cluster_pool.cluster.public.handle import Calls
from cluster_pool.core.closing import NORMAL
from cluster_pool.core.config import Confirm
from cluster_pool.core.results import Delivery


class PeopleCalls(Calls):
    """All connections of a user, on any node."""

    async def send_user(
        self,
        user: str,
        message: str | bytes,
        *,
        confirm: Confirm = False,
        timeout: float | None = None,
    ) -> Delivery:
        """Send one message to every connection of a user.

        The connections are read from Redis, and each gets the message as by :meth:`send`: at most
        once, and behind the messages for the user that were awaited here before. A connection that
        comes meanwhile may get it or not. What is sent to a user and what is sent to a namespace
        have no order between them.

        Args:
            user: as given to :meth:`ClusterPool.accept` or by the identity, 1 to 250 bytes.
            confirm: True waits for the word of each connection's node, ``"client"`` for its
                client's receipt: see :meth:`send`.
            timeout: seconds; default 2. For a user with more than 500 connections, of each 500.

        Returns:
            How many connections it reached, and how many it did not; truthy if it reached one, and
            falsy if the user has none. See :class:`Delivery`.

        Raises:
            As :meth:`send`. BackplaneUnavailableError has ``maybe_executed`` also when some
            connections have got the message and others have not.
        """
        return await self._running().people.send(user, message, confirm, timeout)

    async def online(self, users: Iterable[str], *, timeout: float | None = None) -> dict[str, int]:
        """The number of connections of each of some users, without those of dead nodes; 0 for none.

        For 500 users it takes one round trip, on a Redis Cluster one to each shard and one more.

        Args:
            users: any number of them; or one.
            timeout: seconds for all of them; default 2.

        Raises:
            InvalidIdError: one of them may not name a user.
            BackplaneUnavailableError: Redis did not answer in time.
        """
        return await self._running().people.online(users, timeout)

    async def close_user(
        self, user: str, code: int = NORMAL, reason: str = "", *, timeout: float | None = None
    ) -> int:
        """Close every connection of a user; returns how many nodes Redis sent it to.

        0 proves that no node heard it; more proves nothing. It comes behind the messages for the
        user that were sent from here before. A connection that comes meanwhile may stay: first
        take away what lets the user in. Raises as :meth:`send`.
        """
        return await self._running().people.close(user, code, reason, timeout)
