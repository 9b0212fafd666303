"""The public calls that join and end memberships of connections anywhere; :class:`Sending` sends
them."""

from cluster_pool.cluster.public.handle import Calls
from cluster_pool.core.results import SendResult


class MembershipCalls(Calls):
    """Memberships of connections on any node."""

    async def join(
        self,
        namespace: str,
        id: str,
        joined: str,
        *,
        as_id: str | None = None,
        on_conflict: str | None = None,
        timeout: float | None = None,
    ) -> SendResult:
        """Have a member's connection join one more namespace, wherever it is.

        Its node does as :meth:`.Connection.join` and answers then. It comes behind messages that
        were sent to the member before.

        Args:
            namespace, id: the member, at home or by any other membership of its connection.
            joined: the namespace to join.
            as_id: the id there; None for the id of the connection.
            on_conflict: ``"takeover"``, ``"reject"``, or None: see :meth:`.Connection.join`. An
                application is trusted; it checks what a client asks it for.
            timeout: seconds to wait for the answer; default 2.

        Returns:
            DELIVERED: it has joined, or had before. REFUSED: the id is taken, a limit is reached,
            the node drains, the connection is closing, its identity has expired, or Redis did not
            answer the node. ABSENT, UNREACHABLE and TIMED_OUT as for a confirmed :meth:`send`;
            after TIMED_OUT it may have joined. What its identity permits is not asked: that is for
            clients.

        Raises:
            As :meth:`send`.
        """
        sending = self._running().sending
        return await sending.join(namespace, id, joined, as_id, on_conflict, timeout)

    async def leave(
        self, namespace: str, id: str, left: str, *, timeout: float | None = None
    ) -> SendResult:
        """Have a member's connection leave a namespace, wherever it is; it stays open.

        Its ``left`` handlers are called with ``"removed"``. If it was the last member there, the
        ``empty`` handlers of its node's pool are called. A connection that must leave its home is
        closed with 1000. Results and errors as :meth:`join`: DELIVERED when it has left, or was not
        there.
        """
        return await self._running().sending.leave(namespace, id, left, timeout)

    async def remove_all(self, namespace: str, *, timeout: float | None = None) -> int:
        """End all memberships of a namespace; returns how many nodes Redis sent it to.

        Connections that have joined it stay open, and each is told as by :meth:`leave`. Those whose
        home it is are closed with 1000. It comes behind the broadcasts that were sent before it.
        Raises as :meth:`send`.
        """
        return await self._running().sending.remove_all(namespace, timeout)
