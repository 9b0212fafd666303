"""The outcome of every message of a trial. Decides on tables; knows no process, socket or clock.

Reports of missing messages are numbers, not names. They are taken to be first of all about what
the sender was told already (nobody listened), and only then about what it believed to be carried:
so what counts as lost in silence is the most that it can have been.
"""

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tools.contenders.served import NOT_SENT, RETURNED, UNANSWERED, UNHEARD, UNKNOWN
from tools.contenders.streams import Call


class Heard(NamedTuple):
    """One message as it arrived."""

    stream: int
    number: int
    at: float


@dataclass(frozen=True)
class Counts:
    """The outcome of the messages of one kind.

    Attributes:
        calls: messages, one connection being due to get each.
        outcomes: how their calls ended.
        delivered: arrived at least once, whatever the call said.
        contrary: of these, the ones whose call said that they were not sent.
        twice: arrived more than once.
        disordered: arrived for the first time after a later one of their stream.
        lost: the call returned, and the message never arrived.
        reported: as missing, by what the receiver's API offers for it.
        silent: lost, and not among the reported ones.
        excess: reported beyond what can be missing.
    """

    calls: int
    outcomes: dict[str, int]
    delivered: int
    contrary: int
    twice: int
    disordered: int
    lost: int
    reported: int
    silent: int
    excess: int


def count(calls: Sequence[Call], heard: Iterable[Heard], reported: int) -> Counts:
    """Account for every call of one kind."""
    arrivals = Counter((one.stream, one.number) for one in sorted(heard, key=_by_arrival))
    outcomes = Counter(call.outcome for call in calls)
    missing = Counter(call.outcome for call in calls if (call.stream, call.number) not in arrivals)
    lost, told = missing[RETURNED], missing[UNHEARD]
    perhaps = missing[UNKNOWN] + missing[UNANSWERED]
    return Counts(
        calls=len(calls),
        outcomes=dict(outcomes),
        delivered=len(calls) - missing.total(),
        contrary=sum(outcomes[said] - missing[said] for said in (NOT_SENT, UNHEARD)),
        twice=sum(times > 1 for times in arrivals.values()),
        disordered=sum(1 for _ in _out_of_order(arrivals)),
        lost=lost,
        reported=reported,
        silent=max(0, lost - max(0, reported - told)),
        excess=max(0, reported - told - lost - perhaps),
    )


def _by_arrival(heard: Heard) -> float:
    return heard.at


def _out_of_order(first_arrivals: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    latest: dict[int, int] = {}
    for stream, number in first_arrivals:
        if number < latest.get(stream, 0):
            yield stream, number
        else:
            latest[stream] = number


def deaf_after(healed: float, calls: Iterable[Call], heard: Iterable[Heard]) -> float | None:
    """Seconds until the first message arrived that set out after ``healed``; None: never."""
    since = {(call.stream, call.number) for call in calls if call.begun >= healed}
    arrivals = [one.at for one in heard if (one.stream, one.number) in since]
    return min(arrivals) - healed if arrivals else None


def longest_silence(begun: float, ended: float, heard: Iterable[Heard]) -> float:
    """The longest time between two arrivals, in seconds."""
    arrivals = sorted(one.at for one in heard if begun < one.at < ended)
    times = [begun, *arrivals, ended]
    return max(later - earlier for earlier, later in itertools.pairwise(times))
