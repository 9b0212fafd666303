"""A claim before its answer: what is known of it meanwhile, and how it ends."""

import asyncio
from dataclasses import dataclass

from cluster_pool.exceptions import BackplaneUnavailableError
from cluster_pool.local.connection import Connection
from cluster_pool.local.membership import Membership


@dataclass(slots=True, eq=False)
class PendingClaim:
    """A claim on its way.

    Attributes:
        membership: what the claim is made for; not in the table yet.
        nonce: by which the claim is known before Redis gives it a time.
        takeover: whether it may take the id over from another connection.
        deadline: until when its caller waits, on the loop's clock.
        won: ends well when the membership is in the table.
        taken_over: whether a newer claim of the id was heard of before the answer to this one.
        sent: whether Redis may have carried it out.
        asked: whether the owner was asked for a sign of life; once is enough.
        first: Redis time in µs of the first attempt whose reply was lost.
    """

    membership: Membership[Connection]
    nonce: str
    takeover: bool
    deadline: float
    won: asyncio.Future[None]
    taken_over: bool = False
    sent: bool = False
    asked: bool = False
    first: int = 0

    def fail(self, error: Exception) -> None:
        """Let it end with an error, unless it has ended."""
        if self.won.done():
            return
        if isinstance(error, BackplaneUnavailableError):
            maybe = error.maybe_executed or self.sent
            own = BackplaneUnavailableError(str(error), maybe_executed=maybe)
            own.__cause__ = error
            error = own
        self.won.set_exception(error)
        self.won.exception()  # taken note of: the caller may be waiting elsewhere
