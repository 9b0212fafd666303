"""Numbers of messages, and the missing ones that they show."""

from typing import Any

from cluster_pool.core.numbers import (
    NO_COUNTER,
    SHORTEST_LIFE,
    UNREADABLE,
    Counter,
    Numbers,
    ServerChange,
)

SAME, MOVED, TAKEN_OVER, LOST = ServerChange

NOW = 10 * SHORTEST_LIFE


def resubscribed(
    numbers: Numbers,
    channel: str,
    epoch: str | None,
    number: int,
    change: ServerChange = SAME,
    former: tuple[str, int] | None = None,
) -> None:
    """The channel is subscribed again, and its counter is that."""
    numbers.resubscribed(channel, Counter(epoch, number, former), change, NOW)


def test_holes_in_the_numbers_are_counted() -> None:
    """Holes within and across interruptions are exact, in messages; a late message is no hole."""
    numbers = Numbers()
    numbers.begin("c", "1", 2)
    numbers.heard("c", "1", 5, 3)
    numbers.heard("c", "1", 6, 1)
    numbers.heard("c", "1", 6, 0)
    assert numbers.take_missed() == ({}, True)
    numbers.heard("c", "1", 9, 2)
    assert numbers.take_missed() == ({"c": 1}, True)
    numbers.interrupted()
    numbers.heard("c", "1", 12, 1)
    resubscribed(numbers, "c", "1", 12)
    assert numbers.take_missed() == ({"c": 2}, True)
    numbers.interrupted()
    resubscribed(numbers, "c", "1", 15)
    assert numbers.take_missed() == ({"c": 3}, True)
    numbers.heard("c", "1", 14, 1)
    numbers.dropped("c", 7)
    assert numbers.take_missed() == ({"c": 7}, True)
    numbers.heard("c", "1", 16, 1)
    assert numbers.take_missed() == ({}, True)


def test_a_counter_read_after_an_interruption_may_be_older_than_later_messages() -> None:
    """The counter is read first, and messages go on arriving before it is compared."""
    numbers = Numbers()
    numbers.begin("c", "1", 5)
    numbers.interrupted()
    numbers.heard("c", "1", 8, 1)
    resubscribed(numbers, "c", "1", 7)
    assert numbers.take_missed() == ({"c": 2}, True)
    numbers.heard("c", "1", 9, 1)
    assert numbers.take_missed() == ({}, True)


def test_an_interruption_makes_nothing_for_each_channel() -> None:
    """There may be 200,000, and all are interrupted in one turn; what each missed is exact."""
    numbers = Numbers()
    for at in range(100):
        numbers.begin(f"c{at}", "1", 5)
    for _ in range(2):
        numbers.interrupted()
    assert not any(numbers._doubtful.values())
    numbers.heard("c0", "1", 7, 1)
    numbers.interrupted()
    assert len(list(filter(None, numbers._doubtful.values()))) == 1
    for at in range(100):
        resubscribed(numbers, f"c{at}", "1", 8)
    assert numbers.take_missed() == ({"c0": 2} | {f"c{at}": 3 for at in range(1, 100)}, True)
    assert not numbers._doubtful


def test_a_lost_counter_gives_a_lower_bound() -> None:
    """Across an interruption; without one, pub/sub has lost nothing."""
    numbers = Numbers()
    numbers.begin("c", "1", 5)
    numbers.heard("c", "2", 2, 2)
    assert numbers.take_missed() == ({}, True)
    numbers.interrupted()
    resubscribed(numbers, "c", "3", 4)
    assert numbers.take_missed() == ({"c": 4}, False)
    numbers.interrupted()
    resubscribed(numbers, "c", "3", 4, LOST)
    assert numbers.take_missed() == ({"c": 0}, False)
    numbers.interrupted()
    resubscribed(numbers, "c", None, 0)
    assert numbers.take_missed() == ({}, True)
    numbers.interrupted()
    resubscribed(numbers, "c", "3", 3)
    assert numbers.take_missed() == ({"c": 0}, False), "restored from a snapshot: it went back"
    numbers.heard("c", "3", 4, 1)
    assert numbers.take_missed() == ({}, True)
    numbers.interrupted()
    numbers.heard("c", "3", 4, 2)
    resubscribed(numbers, "c", "3", 4)
    assert numbers.take_missed() == ({"c": 0}, False)


def test_a_restored_counter_may_reach_the_same_number_again() -> None:
    """Messages heard since are not subtracted from a counter that was read before."""
    numbers = Numbers()
    numbers.begin("c", "1", 20)
    numbers.interrupted()
    numbers.heard("c", "1", 20, 10)
    resubscribed(numbers, "c", "1", 17, LOST)
    assert numbers.take_missed() == ({"c": 0}, False)
    numbers.heard("c", "1", 21, 1)
    assert numbers.take_missed() == ({}, True)


def test_a_channel_that_had_no_counter_begins_at_one() -> None:
    """A subscriber from before the first message misses from the first one on."""
    numbers = Numbers()
    numbers.begin("c", NO_COUNTER, 0)
    numbers.interrupted()
    resubscribed(numbers, "c", "1", 3)
    assert numbers.take_missed() == ({"c": 3}, True)
    numbers.begin("d", "1", 7)
    numbers.heard("d", "1", 8, 1)
    assert numbers.take_missed() == ({}, True)
    resubscribed(numbers, "new", "1", 8, LOST)
    numbers.heard("new", "1", 9, 1)
    assert numbers.take_missed() == ({}, True)


def test_a_counter_that_an_old_state_brings_back_counts_nothing_that_was_missed() -> None:
    """It had expired before the channel was subscribed, and an old snapshot has it again."""
    uncounted = (NO_COUNTER, 0)
    assert after(interrupted(last=uncounted), "1", 16, change=LOST) == (0, False)
    numbers = interrupted(last=uncounted)
    numbers.heard("c", "1", 17, 1)
    numbers.heard("c", "1", 20, 1)
    assert after(numbers, "1", 20, change=LOST) == (2, False), "those between the ones heard"
    numbers.heard("c", "1", 22, 1)
    assert numbers.take_missed() == ({"c": 1}, True)
    numbers = interrupted(last=uncounted)
    numbers.heard("c", "1", 17, 1)
    assert after(numbers, "1", 18, change=SAME) == (17, True), "it was not restarted"


def test_a_channel_that_is_heard_elsewhere_takes_its_account_with_it() -> None:
    """Messages published in between are missed there, exactly if it was heard to its end."""
    here, there = Numbers(), Numbers()
    here.begin("c", "1", 4)
    here.heard("c", "1", 5, 1)
    here.ended("c")
    here.hand_over("c", there)
    there.heard("c", "1", 9, 1)
    resubscribed(there, "c", "1", 8)
    assert there.take_missed() == ({"c": 3}, True)
    assert here.take_missed() == ({}, True)
    here.heard("c", "1", 20, 1)
    assert here.take_missed() == ({}, True), "nothing is known of it any more"
    here.hand_over("unknown", there)
    assert there.take_missed() == ({}, True)


def test_a_subscription_that_was_interrupted_alone_is_in_doubt_alone() -> None:
    """Handed over to the same account."""
    numbers = Numbers()
    numbers.begin("c", "1", 4)
    numbers.begin("d", "1", 4)
    numbers.ended("c")
    resubscribed(numbers, "c", "1", 6)
    numbers.heard("d", "1", 5, 1)
    assert numbers.take_missed() == ({"c": 2}, True)


def interrupted(*, ended: bool = False, last: tuple[str, int] = ("1", 5)) -> Numbers:
    """One channel, whose last message is known, and then its server had a successor."""
    numbers = Numbers()
    numbers.begin("c", *last)
    if ended:
        numbers.ended("c")
    numbers.interrupted()
    return numbers


def after(
    numbers: Numbers, *counter: Any, change: ServerChange = TAKEN_OVER
) -> tuple[int, bool] | None:
    """How many were missed, and whether exactly, when it is subscribed again; None for no gap."""
    resubscribed(numbers, "c", counter[0], counter[1], change, *counter[2:])
    missed, exact = numbers.take_missed()
    return (missed["c"], exact) if missed else None


def test_a_successor_with_the_same_numbers_is_no_gap() -> None:
    """It knows no message that was not heard; a counter that has expired had none for a minute."""
    assert after(interrupted(), "1", 5) is None
    assert after(interrupted(last=(NO_COUNTER, 0)), None, 0) is None
    assert after(interrupted(), None, 0) is None
    young = (str(NOW - SHORTEST_LIFE // 2), 5)
    assert after(interrupted(last=young), None, 0) == (0, False), "it was lost"
    assert after(interrupted(last=young, ended=True), None, 0) is None


def test_messages_before_counting_begins_tell_nothing() -> None:
    """They may be of a subscription that has ended, or of an attempt that failed."""
    numbers = Numbers()
    numbers.heard("c", "1", 1, 1)
    numbers.heard("c", "1", 7, 1)
    numbers.begin("c", "1", 6)
    numbers.heard("c", "1", 8, 1)
    assert numbers.take_missed() == ({}, True)
    numbers.heard("c", "1", 10, 1)
    assert numbers.take_missed() == ({"c": 1}, True)
    numbers.heard("d", "2", 3, 1)
    numbers.interrupted()
    resubscribed(numbers, "d", "1", 8, LOST)
    numbers.heard("d", "1", 9, 1)
    assert numbers.take_missed() == ({}, True)
    numbers.heard("e", "1", 3, 1)
    numbers.forget("e")
    numbers.begin("e", "0", 1)
    numbers.heard("e", "1", 1, 1)
    assert numbers.take_missed() == ({}, True)


def test_counting_begins_behind_the_first_message_where_the_counter_cannot_be_read() -> None:
    """Across an interruption before that, nobody knows how many were missed."""
    numbers = Numbers()
    for channel in "cd":
        numbers.begin(channel, UNREADABLE, 0)
    numbers.heard("c", "1", 7, 1)
    numbers.heard("c", "1", 9, 1)
    assert numbers.take_missed() == ({"c": 1}, True)
    numbers.ended("d")
    numbers.interrupted()
    for channel in "cd":
        resubscribed(numbers, channel, "1", 10)
    assert numbers.take_missed() == ({"c": 1, "d": 0}, False)
    numbers.heard("d", "1", 11, 1)
    assert numbers.take_missed() == ({}, True)
    resubscribed(numbers, "e", UNREADABLE, 0)
    resubscribed(numbers, "e", "1", 3)
    numbers.heard("e", "1", 4, 1)
    assert numbers.take_missed() == ({}, True)


def test_a_counter_that_cannot_be_read_leaves_the_rest_for_the_next_reading() -> None:
    """Messages that are known to be missed are told at once, and none twice."""
    numbers = interrupted()
    numbers.heard("c", "1", 8, 1)
    assert after(numbers, UNREADABLE, 0, change=SAME) == (2, False)
    numbers.heard("c", "1", 10, 1)
    assert after(numbers, UNREADABLE, 0, change=SAME) == (1, False)
    assert after(numbers, "1", 13, change=SAME) == (3, True)
    numbers.interrupted()
    assert after(numbers, "1", 13, change=SAME) is None


def test_a_loss_is_not_forgotten_over_a_counter_that_cannot_be_read() -> None:
    """An old state counts no messages that were missed, also when it is read late."""
    for known in (("2", 5), (NO_COUNTER, 0)):
        numbers = interrupted(last=known)
        assert after(numbers, UNREADABLE, 0, change=LOST) == (0, False)
        numbers.heard("c", "1", 17, 1)
        assert numbers.take_missed() == ({}, True)
        assert after(numbers, "1", 17, change=SAME) == (0, False)
        numbers.heard("c", "1", 19, 1)
        assert numbers.take_missed() == ({"c": 1}, True)


def test_messages_that_a_successor_knows_are_a_lower_bound() -> None:
    """The former server may have taken others with it. None is counted that was heard."""
    assert after(interrupted(), "1", 8) == (3, False)
    assert after(interrupted(), "1", 3) == (0, False), "it lacks some that were heard here"
    assert after(interrupted(), "2", 4, ("1", 7)) == (6, False)
    assert after(interrupted(), "2", 4, ("1", 3)) == (4, False)
    assert after(interrupted(), "2", 4) == (4, False)
    assert after(interrupted(), "2", 4, ("0", 9)) == (4, False), "of servers in between"
    assert after(interrupted(last=("2", 1)), "1", 57) == (0, False), "an old counter came back"
    assert after(interrupted(last=(NO_COUNTER, 0)), "2", 4, ("1", 3)) == (7, False)


def test_a_history_that_begins_on_the_same_server_is_followed() -> None:
    """Its epoch says where the one before ended; of an earlier one nothing is known."""
    assert after(interrupted(), "2", 0, ("1", 5), change=SAME) is None
    assert after(interrupted(), "2", 4, ("1", 7), change=SAME) == (6, True)
    assert after(interrupted(), "3", 4, ("2", 5), change=SAME) == (4, False)
    assert after(interrupted(), "2", 4, change=SAME) == (4, False)
    last = (NO_COUNTER, 0)
    assert after(interrupted(last=last), "2", 4, ("1", 3), change=SAME) == (7, False)


def test_messages_of_a_channel_that_was_heard_to_its_end_are_counted_exactly() -> None:
    """All that its former server published has arrived, so the successor's numbers are the rest."""
    assert after(interrupted(ended=True), "1", 3) is None
    assert after(interrupted(ended=True), "1", 8) == (3, True)
    assert after(interrupted(ended=True), "2", 4, ("1", 5)) == (4, True)
    assert after(interrupted(ended=True), "2", 4, ("1", 5), change=MOVED) == (4, True)
    assert after(interrupted(ended=True), "2", 4, ("1", 3)) == (4, True)
    assert after(interrupted(ended=True), "3", 4, ("2", 5)) == (4, False), "another in between"
    assert after(interrupted(ended=True), "1", 8, change=LOST) == (3, False)


def test_messages_heard_before_the_counter_is_compared_are_not_missed() -> None:
    """The successor begins a new epoch at 1."""
    numbers = interrupted()
    numbers.heard("c", "2", 2, 2)
    assert after(numbers, "2", 2, ("1", 5)) is None
    numbers.interrupted()
    numbers.heard("c", "2", 5, 1)
    assert after(numbers, "2", 4, ("1", 5)) == (2, False)
    numbers.heard("c", "2", 6, 1)
    assert numbers.take_missed() == ({}, True)
    numbers = interrupted(last=("2", 5))
    numbers.heard("c", "1", 58, 1)
    assert after(numbers, "1", 58) == (0, False), "an old counter came back"


def test_the_losses_of_two_interruptions_add_up() -> None:
    """The first successor went before its counter was compared."""
    numbers = interrupted()
    numbers.heard("c", "2", 3, 1)
    numbers.interrupted()
    assert after(numbers, "2", 9, ("1", 6)) == (9, False)
    numbers.heard("c", "2", 10, 1)
    assert numbers.take_missed() == ({}, True)


def test_a_channel_that_has_moved_is_exact_only_as_long_as_nothing_was_lost() -> None:
    """It was not heard to its end at the former shard; or a replica has taken over at the new one,
    which may lack what its primary published after the move."""

    def moved(*, ended: bool, change: ServerChange) -> tuple[int, bool] | None:
        here, there = Numbers(), Numbers()
        here.begin("c", "1", 5)
        if ended:
            here.ended("c")
        here.hand_over("c", there)
        there.interrupted()
        return after(there, "2", 4, ("1", 5), change=change)

    assert moved(ended=True, change=SAME) == moved(ended=True, change=MOVED) == (4, True)
    assert moved(ended=False, change=SAME) == moved(ended=False, change=MOVED) == (4, False)
    assert moved(ended=True, change=TAKEN_OVER) == (4, False)


def test_the_place_in_a_history_stands_behind_the_epoch() -> None:
    """Anything else there is no place; the counter counts all the same."""
    assert Counter.read(b"12 30 5 40 6 7", b"34", b"11 5") == Counter("12", 34, ("11", 5), 30)
    for place in (b"", b" ", b" 1 2 3 4", b" x 0 0 0 0"):
        assert Counter.read(b"12" + place, b"34") == Counter("12", 34)
    assert Counter.read(b" 30 5 40 6 7", b"34") == Counter(None, 0)


def test_a_gap_that_is_closed_otherwise_is_not_counted() -> None:
    """Counting goes on at the counter, or at what was heard beyond it."""
    for heard, later in ((None, 10), (12, 13)):
        numbers = interrupted()
        if heard:
            numbers.heard("c", "1", heard, 1)
        numbers.begin_again("c", "1", 9)
        numbers.heard("c", "1", later, 1)
        assert numbers.take_missed() == ({}, True)
        numbers.heard("c", "1", later + 3, 1)
        assert numbers.take_missed() == ({"c": 2}, True)


def test_channels_that_are_left_for_later_stay_inexact() -> None:
    """It is not known to which of the channels the doubt belongs."""
    numbers = Numbers()
    numbers.dropped("a", 2)
    numbers.dropped("b", 3, exact=False)
    assert numbers.take_missed(lambda channel: channel == "b") == ({"a": 2}, False)
    assert numbers.has_missed("b")
    assert numbers.take_missed(lambda channel: channel == "b") == ({}, True)
    assert numbers.take_missed() == ({"b": 3}, False)
    assert numbers.take_missed() == ({}, True)
