"""Messages, counts and closes for users: all connections of a person, wherever they are.

A user's connections are the members of a namespace of their own. A message goes to each of them as
a targeted send, so that its result says how many got it. A close is one broadcast to all of them.
"""

import asyncio
from collections.abc import Iterable

from cluster_pool.backplane.backplane import Backplane
from cluster_pool.cluster.sending import Sending
from cluster_pool.core import envelope
from cluster_pool.core.closing import check_close
from cluster_pool.core.config import Confirm, check_confirm
from cluster_pool.core.ids import check_users, user_namespace
from cluster_pool.core.message import encode
from cluster_pool.core.results import Delivery, SendResult
from cluster_pool.exceptions import BackplaneUnavailableError, ClusterPoolError


class People:
    """The connections of users, as a pool or a publisher reaches them."""

    def __init__(self, backplane: Backplane, sending: Sending) -> None:
        self._loop = backplane.loop
        self._deadline = backplane.deadline
        self._directory = backplane.directory
        self._outbound = backplane.outbound
        self._message_bytes = backplane.setup.limits.message_bytes
        self._sending = sending

    async def send(
        self, user: str, message: str | bytes, confirm: Confirm, timeout: float | None
    ) -> Delivery:
        """Send one message to every connection of a user that is registered now.

        They are read in pages, and each page gets the message before the next one is read.
        """
        deadline, confirm = self._deadline(timeout), check_confirm(confirm)
        namespace = user_namespace(user)
        text, payload = encode(message, self._message_bytes)

        def send(id: str) -> asyncio.Future[SendResult]:
            future: asyncio.Future[SendResult] = self._loop.create_future()
            try:
                self._sending.send_checked(
                    namespace, id, text, payload, None, confirm, deadline, future
                )
            except ClusterPoolError as error:
                future.set_exception(error)
            return future

        await self._directory.patient((namespace,), deadline)
        sent: set[str] = set()
        results: list[SendResult] = []
        async for page in self._directory.claim_pages(namespace, deadline - self._loop.time()):
            ids = [id for id in page if id not in sent]  # an id may come twice
            sent.update(ids)
            outcomes = await asyncio.gather(*map(send, ids), return_exceptions=True)
            results += [one for one in outcomes if isinstance(one, SendResult)]
            for outcome in outcomes:
                if isinstance(outcome, BaseException):
                    raise _in_part(outcome) if results else outcome
        return Delivery.of(results)

    async def online(self, users: Iterable[str], timeout: float | None) -> dict[str, int]:
        """The number of connections of each of some users, on living nodes."""
        deadline = self._deadline(timeout)
        namespaces = {user: user_namespace(user) for user in check_users(users)}
        counts = await self._directory.counts_of([*namespaces.values()], deadline)
        return {user: counts[namespace] for user, namespace in namespaces.items()}

    def close(
        self, user: str, code: int, reason: str, timeout: float | None
    ) -> asyncio.Future[int]:
        """Close every connection of a user."""
        deadline = self._deadline(timeout)
        namespace = user_namespace(user)
        item = envelope.close_all(*check_close(code, reason))
        return self._outbound.broadcast(namespace, item, deadline)


def _in_part(error: BaseException) -> BaseException:
    """The error for a message that some connections have got all the same."""
    if not isinstance(error, BackplaneUnavailableError) or error.maybe_executed:
        return error
    partly = BackplaneUnavailableError(f"not sent to all: {error}", maybe_executed=True)
    partly.__cause__ = error
    return partly
