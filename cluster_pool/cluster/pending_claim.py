"""A claim before its answer."""

import asyncio
import logging
from collections.abc import Iterable
from dataclasses import dataclass

from cluster_pool.core.history import Resumption
from cluster_pool.exceptions import BackplaneUnavailableError
from cluster_pool.local.connection import Connection
from cluster_pool.local.membership import Membership

log = logging.getLogger("cluster_pool.membership")


@dataclass(slots=True, eq=False)
class PendingClaim:
    """A claim that Redis has not answered yet.

    Attributes:
        membership: that of the claim; not in the table yet.
        nonce: names the claim before Redis gives it a time.
        takeover: whether it may take the id over from another connection; None: from one of the
            same user alone. Only Redis knows that, so here it is as False.
        deadline: when its caller stops waiting, on the loop's clock.
        won: done, without an error, when the membership is in the table.
        taken_at: Redis time in µs of the claim that an attempt has made and that a newer claim of
            the id has replaced, as was heard before the answer; 0 if none was. A later attempt may
            have won the id again.
        sent: whether Redis may have executed it.
        asked: whether the owner was asked for a sign of life; that is done once.
        first: Redis time in µs of the first attempt whose reply was lost.
        why: the reason for which it is tried again; "" if there is none.
        resumption: what it has found in a namespace with a history.
    """

    membership: Membership[Connection]
    nonce: str
    takeover: bool | None
    deadline: float
    won: asyncio.Future[None]
    taken_at: int = 0
    sent: bool = False
    asked: bool = False
    first: int = 0
    why: str = ""
    resumption: Resumption | None = None

    @property
    def has_won(self) -> bool:
        """Whether the membership is in the table."""
        won = self.won
        return won.done() and not won.cancelled() and won.exception() is None

    def request(self, not_after: int) -> tuple[str, str, int, int, str | None]:
        """As Redis is asked for it, until a time of Redis in µs."""
        one = self.membership
        return one.id, self.nonce, self.first, not_after, one.connection.user

    def fail(self, error: Exception) -> None:
        """End it with an error, unless it has ended."""
        if self.won.done():
            return
        if isinstance(error, BackplaneUnavailableError):
            maybe = error.maybe_executed or self.sent
            own = BackplaneUnavailableError(str(error), maybe_executed=maybe)
            own.__cause__ = error
            error = own
        self.won.set_exception(error)
        self.won.exception()  # read here: the caller may be waiting for something else

    def late(self, error: BackplaneUnavailableError) -> BackplaneUnavailableError:
        """The error at its deadline, with the reason for its last repetition if there is one."""
        if not self.why:
            return error
        why = f"not claimed in time: {self.why}"
        return BackplaneUnavailableError(why, maybe_executed=error.maybe_executed)


class PendingClaims(dict[tuple[str, str], list[PendingClaim]]):
    """The pending claims of one node by namespace and id."""

    def begin(self, pending: PendingClaim) -> None:
        """A claim begins."""
        key = pending.membership.namespace, pending.membership.id
        self.setdefault(key, []).append(pending)

    def end(self, pending: PendingClaim) -> None:
        """A claim has ended: it was decided, or its caller has given up."""
        key = pending.membership.namespace, pending.membership.id
        self[key].remove(pending)
        if not self[key]:
            del self[key]

    def decided(self, membership: Membership[Connection]) -> asyncio.Future[None] | None:
        """Done when the claim of a membership is decided; None when none is pending."""
        for pending in self.get((membership.namespace, membership.id), ()):
            if pending.membership is membership:
                return pending.won
        return None


async def fail_claims(batch: Iterable[PendingClaim], error: Exception) -> None:
    """Fail one batch of claims, which could not be written."""
    log.error("claims could not be written", exc_info=error)
    for pending in batch:
        pending.fail(BackplaneUnavailableError(f"not claimed: {error!r}"))
