"""The question of a broadcast to each node that hears it, and the answers. Pure."""

from collections.abc import Collection
from typing import Any, Final, NamedTuple

from cluster_pool.core.envelope import (
    BINARY,
    EXCEPT,
    MAX_RECEIPT_MS,
    TALLY,
    TEXT,
    BrokenEnvelopeError,
    ReplyTo,
    pack,
)
from cluster_pool.core.results import BroadcastReport

PLAIN_FIELDS: Final = {TEXT: 3, BINARY: 3, EXCEPT[TEXT]: 4, EXCEPT[BINARY]: 4}
"""Fields of a broadcast that asks for nothing. Nodes of earlier versions read only these."""
MOST: Final = 1_000_000_000
MARGIN_MS: Final = 250
"""Time for the answers of the nodes, ahead of the deadline: this, or a quarter of what is left."""


class TallyRequest(NamedTuple):
    """The question: the last fields of a broadcast.

    Attributes:
        to: the address for the answer.
        within_ms: milliseconds from the publication in which the answer is of use.
        receipts: whether receipts of the clients are wanted.
    """

    to: ReplyTo
    within_ms: int
    receipts: bool

    @classmethod
    def until(cls, to: ReplyTo, seconds: float, *, receipts: bool) -> "TallyRequest":
        """Ask for an answer that can be here in so many seconds."""
        left = int(1000 * seconds)
        return cls(to, max(1, left - min(MARGIN_MS, left // 4)), receipts)

    @classmethod
    def read(cls, item: list[Any]) -> "TallyRequest | None":
        """Read it from a broadcast; None if it asks for nothing.

        Raises:
            BrokenEnvelopeError: it asks for something else.
        """
        plain = PLAIN_FIELDS.get(item[0])
        if plain is None or len(item) == plain:
            return None
        match item[plain:]:
            case [list(address), int(within_ms), int(receipts)]:
                to = ReplyTo.read(address)
                if to is not None and 0 < within_ms <= MAX_RECEIPT_MS and receipts in (0, 1):
                    return cls(to, within_ms, receipts == 1)
        raise BrokenEnvelopeError("tally")


class Tally(NamedTuple):
    """The answer of one node: numbers of connections, as in the report."""

    delivered: int = 0
    refused: int = 0
    received: int = 0
    timed_out: int = 0

    @classmethod
    def read(cls, item: list[Any]) -> "Tally":
        """Read it from an answer; raises BrokenEnvelopeError."""
        numbers = item[4:]
        if len(numbers) != len(cls._fields) or not all(
            type(one) is int and 0 <= one <= MOST for one in numbers
        ):
            raise BrokenEnvelopeError("tally")
        return cls(*numbers)

    def item(self, to: ReplyTo, start: str) -> bytes:
        """The answer of the node of this start."""
        return pack((TALLY, to.request, start, to.start, *self))


def report_of(nodes: int, tallies: Collection[Tally]) -> BroadcastReport:
    """The report of a broadcast that Redis handed to so many nodes.

    One that has answered had it, also if it was cut off then, and read it from the history.
    """
    nodes = max(nodes, len(tallies))
    sums = Tally(*map(sum, zip(Tally(), *tallies, strict=True)))
    silent = nodes - len(tallies)
    return BroadcastReport(
        nodes, sums.delivered, sums.refused, sums.received, sums.timed_out, silent
    )
