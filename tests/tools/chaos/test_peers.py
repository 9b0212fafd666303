"""The counts of scripts/chaos-peers, and a trial of ourselves; the others are not run here."""

from collections.abc import Iterable

import pytest

from tests.support import async_test
from tools.chaos.count import Counts, Heard, count, deaf_after, longest_silence
from tools.chaos.peers import BOTH, Fault, cuts, run
from tools.contenders.line_up import OURS
from tools.contenders.served import NOT_SENT, RETURNED, UNANSWERED, UNHEARD, UNKNOWN
from tools.contenders.streams import Call


def calls(*outcomes: str, stream: int = 0) -> list[Call]:
    """Calls of one stream, a second apart, numbered from 1."""
    return [Call(stream, at, at, at + at / 8, outcome) for at, outcome in enumerate(outcomes, 1)]


def heard(*numbers: int, stream: int = 0) -> list[Heard]:
    """Messages of one stream in the order of their arrival, a second apart."""
    return [Heard(stream, number, float(at)) for at, number in enumerate(numbers, 1)]


def counted(outcomes: Iterable[str], numbers: Iterable[int], reported: int = 0) -> Counts:
    """The counts of one stream."""
    return count(calls(*outcomes), heard(*numbers), reported)


def test_a_trial_without_faults_counts_none() -> None:
    """All calls returned, and all messages arrived once, in order."""
    counts = counted([RETURNED] * 3, [1, 2, 3])
    assert (counts.calls, counts.delivered, counts.outcomes) == (3, 3, {RETURNED: 3})
    wrong = (counts.twice, counts.disordered, counts.lost, counts.silent)
    assert wrong == (0, 0, 0, 0)
    assert (counts.contrary, counts.excess) == (0, 0)


def test_twice_is_counted_per_message() -> None:
    """Two arrivals or three of one message are one duplicate, one delivery, and no disorder."""
    counts = counted([RETURNED] * 3, [1, 2, 1, 1, 3, 3])
    assert (counts.delivered, counts.twice, counts.disordered) == (3, 2, 0)


def test_disorder_is_judged_by_first_arrivals_of_a_stream() -> None:
    """A message that arrives after a later one of its stream is out of order; of another, not."""
    assert counted([RETURNED] * 4, [1, 4, 2, 3]).disordered == 2
    two = calls(RETURNED, RETURNED) + calls(RETURNED, stream=2)
    assert count(two, [*heard(1, 2), Heard(2, 1, 9.0)], 0).disordered == 0


def test_arrivals_count_in_the_order_of_their_times() -> None:
    """However the list stands."""
    assert count(calls(RETURNED, RETURNED), reversed(heard(1, 2)), 0).disordered == 0


def test_a_message_counts_as_lost_in_silence_if_no_report_covers_it() -> None:
    """Its call returned and it never arrived; a report covers as many as it says."""
    assert counted([RETURNED] * 5, [1, 2]).silent == 3
    assert counted([RETURNED] * 5, [1, 2], reported=2).silent == 1
    assert counted([RETURNED] * 5, [1, 2], reported=3).silent == 0


def test_a_report_is_first_about_what_was_told_already() -> None:
    """The sender knows of unheard messages: a report of as many proves nothing about others."""
    counts = counted([UNHEARD, UNHEARD, RETURNED], [], reported=2)
    assert (counts.lost, counts.silent) == (1, 1)
    assert counted([UNHEARD, UNHEARD, RETURNED], [], reported=3).silent == 0


def test_a_report_may_be_about_what_is_unknown_but_not_beyond() -> None:
    """More reported than can be missing is excess."""
    outcomes = [RETURNED, UNKNOWN, UNANSWERED, NOT_SENT]
    assert counted(outcomes, [], reported=3).excess == 0
    assert counted(outcomes, [], reported=4).excess == 1
    assert counted(outcomes, [1, 2], reported=2).excess == 1


@pytest.mark.parametrize("outcome", [NOT_SENT, UNHEARD])
def test_a_message_that_counts_as_not_sent_must_not_arrive(outcome: str) -> None:
    """One that arrives is delivered, and contrary to its sender's answer."""
    counts = counted([outcome, RETURNED], [1, 2])
    assert (counts.delivered, counts.contrary) == (2, 1)


@pytest.mark.parametrize("outcome", [UNKNOWN, UNANSWERED])
def test_a_message_of_unknown_outcome_may_arrive_or_not(outcome: str) -> None:
    """It is neither lost, nor contrary."""
    counts = counted([outcome, outcome], [1])
    assert (counts.delivered, counts.lost, counts.contrary) == (1, 0, 0)


def test_deafness_ends_with_a_message_that_set_out_after_the_fault() -> None:
    """A delayed message from before the fault does not end it."""
    sent = calls(RETURNED, RETURNED, RETURNED)
    late = [Heard(0, 1, 2.6), Heard(0, 3, 7.5)]
    assert deaf_after(2.5, sent, late) == 5.0
    assert deaf_after(2.5, sent, late[:1]) is None


def test_silence_counts_from_the_first_fault_to_the_last_call() -> None:
    """Also when nothing arrives at all, or nothing any more."""
    assert longest_silence(0.0, 10.0, []) == 10.0
    assert longest_silence(0.0, 10.0, heard(1, 2, 3)) == 7.0
    assert longest_silence(0.0, 3.5, heard(1, 2, 3)) == 1.0


def test_a_schedule_is_the_same_for_everyone() -> None:
    """One seed, one schedule; the last fault is of both sides, the others of one."""
    assert cuts(7, 100) == cuts(7, 100) != cuts(8, 100)
    drawn = cuts(7, 100)
    assert len(drawn) == 100
    assert not any(fault.strand for fault in drawn)
    assert [len(fault.at) for fault in drawn] == [1] * 99 + [2]
    assert set(sum((tuple(fault.at) for fault in drawn[:-1]), ())) == set(BOTH)


@pytest.mark.real
@async_test
async def test_a_trial_of_ourselves_counts_every_message() -> None:
    """Links of both sides are cut once: nothing is lost in silence, and everything is counted."""
    trial = await run(OURS.name, [Fault(0.0, BOTH)], streams=4, rate=200.0)
    assert not trial.failed, trial
    assert trial.deaf is not None
    for counts in trial.kinds.values():
        assert counts.calls > 300
        assert counts.delivered > 200
