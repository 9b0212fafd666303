"""Joins and leaves as the scripts publish them: numbered lines of JSON, and what is missing.

The events of a namespace are numbered from 1 under an epoch. Both are kept in its hash of owners
and deleted with it: the leave that empties a namespace says so, and the next join begins another
epoch. Pure.
"""

import json
import re
from typing import Any, Final, NamedTuple

from cluster_pool.core.envelope import BrokenEnvelopeError
from cluster_pool.core.ids import check_id
from cluster_pool.core.profiles import read_fields
from cluster_pool.core.results import MemberEvent
from cluster_pool.exceptions import InvalidIdError

MAX_BYTES: Final = 256 * 1024
"""The size of a payload with 125 events whose ids and node ids have 256 bytes, all escaped."""

PAYLOAD_BYTES: Final = 64 * 1024
"""From this size on the scripts begin another payload. One event may have half a KiB for ids, all
escaped, and the limit of a profile."""

COUNTER: Final = ("epoch#", "events#")
"""The fields of the hash of owners with the epoch and the count of events; they are no owners."""

NUMBER: Final = b'"n":'
"""How a number begins, readable or not, in a line of ours."""

TAIL: Final = re.compile(rb',"n":(\d{1,15}),"epoch":"(\d{1,17})"(,"empty":true)?\}\Z')


class Mark(NamedTuple):
    """The last number of a channel.

    ``told``: it is from the counter; events up to it may still be on their way to a new subscriber.
    """

    epoch: str
    number: int
    told: bool = False


NOTHING: Final = Mark("", 0)
"""The namespace is empty: the next epoch begins at 1."""


class EventNumbers:
    """The last number heard of each channel. The methods return whether events were missed."""

    __slots__ = ("_before", "_last")

    def __init__(self) -> None:
        self._last: dict[str, Mark] = {}
        self._before: dict[str, Mark] = {}

    def begin(self, channel: str, epoch: str | None, number: int) -> None:
        """A new subscription: counting begins behind ``number``."""
        told = _mark(epoch, number)._replace(told=True)
        self._last.setdefault(channel, told)

    def forget(self, channel: str) -> None:
        """``channel`` is no longer subscribed."""
        self._last.pop(channel, None)
        self._before.pop(channel, None)

    def heard(self, channel: str, payload: bytes) -> bool:
        """A payload has arrived; returns whether events ahead of it were missed.

        A payload without numbers is from another program and does not count.
        """
        found = TAIL.search(payload, payload.rfind(b"\n") + 1)
        if found is None:
            return False
        number, epoch = int(found[1]), found[2].decode()
        first = number - payload.count(b"\n")
        known = self._last.get(channel)
        if known is not None and known.told and known.epoch == epoch and number <= known.number:
            return False
        self._last[channel] = NOTHING if found[3] else Mark(epoch, number)
        if known is None:
            return False
        return known.epoch not in (epoch, NOTHING.epoch) or first != known.number + 1

    def interrupted(self) -> None:
        """The subscriptions ended: :meth:`resubscribed` tells whether they missed events."""
        self._before = {**self._last, **self._before}
        self._last.clear()

    def hand_over(self, channel: str, other: "EventNumbers") -> None:
        """``channel`` is heard elsewhere from now on; :meth:`resubscribed` there finds the gap."""
        last = self._last.pop(channel, None)
        before = self._before.pop(channel, last)
        if before is not None:
            other._before[channel] = before

    def resubscribed(self, channel: str, epoch: str | None, number: int, *, lost: bool) -> bool:
        """The counter stood at ``number`` after ``channel`` was subscribed again.

        Args:
            epoch: None when there is no counter: then it is not known what was missed.
            lost: Redis may have lost its state since the interruption.

        Returns:
            Whether events were missed, or may have been.
        """
        before = self._before.pop(channel, None)
        counter, since = _mark(epoch, number), self._last.get(channel)
        if since is None or since.epoch != counter.epoch or since.number < counter.number:
            self._last[channel] = counter
        if before is None:
            return False
        return lost or epoch is None or (before.epoch, before.number) != (epoch, number)


def _mark(epoch: str | None, number: int) -> Mark:
    return NOTHING if epoch is None else Mark(epoch, number)


def read_event(line: bytes) -> MemberEvent:
    """The event of one line of a payload; raises BrokenEnvelopeError if it has none.

    A leave from a node that is not known any more has "" as its node.
    """
    try:
        fields: dict[str, Any] = json.loads(line)
        kind, node, id = fields["event"], fields["node"], check_id(fields["id"])
        known = "" if node == "" else check_id(node)
        user, info = read_fields(fields)
    except (ValueError, TypeError, KeyError, InvalidIdError, RecursionError) as error:
        raise BrokenEnvelopeError("event") from error
    if kind not in ("join", "update", "leave"):
        raise BrokenEnvelopeError("event")
    return MemberEvent(kind, id, known, user, info)
