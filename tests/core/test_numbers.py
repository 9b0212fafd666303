"""Numbers of messages, and the missing ones that they show."""

from cluster_pool.core.numbers import NO_COUNTER, Numbers


def test_holes_in_the_numbers_are_counted() -> None:
    """Holes within and across interruptions are exact, in messages; a late message is no hole."""
    numbers = Numbers()
    numbers.heard("c", "e", 5, 3)
    numbers.heard("c", "e", 6, 1)
    numbers.heard("c", "e", 6, 0)
    assert numbers.take_missed() == ({}, True)
    numbers.heard("c", "e", 9, 2)
    assert numbers.take_missed() == ({"c": 1}, True)
    numbers.interrupted()
    numbers.heard("c", "e", 12, 1)
    numbers.resubscribed("c", "e", 12, lost=False)
    assert numbers.take_missed() == ({"c": 2}, True)
    numbers.interrupted()
    numbers.resubscribed("c", "e", 15, lost=False)
    assert numbers.take_missed() == ({"c": 3}, True)
    numbers.heard("c", "e", 14, 1)
    numbers.dropped("c", 7)
    assert numbers.take_missed() == ({"c": 7}, True)
    numbers.heard("c", "e", 16, 1)
    assert numbers.take_missed() == ({}, True)


def test_a_counter_read_after_an_interruption_may_be_older_than_later_messages() -> None:
    """The counter is read first, and messages go on arriving before it is compared."""
    numbers = Numbers()
    numbers.heard("c", "e", 5, 1)
    numbers.interrupted()
    numbers.heard("c", "e", 8, 1)
    numbers.resubscribed("c", "e", 7, lost=False)
    assert numbers.take_missed() == ({"c": 2}, True)
    numbers.heard("c", "e", 9, 1)
    assert numbers.take_missed() == ({}, True)


def test_a_lost_counter_gives_a_lower_bound() -> None:
    """Across an interruption; without one, pub/sub has lost nothing."""
    numbers = Numbers()
    numbers.heard("c", "e", 5, 1)
    numbers.heard("c", "new", 2, 2)
    assert numbers.take_missed() == ({}, True)
    numbers.interrupted()
    numbers.resubscribed("c", "newer", 4, lost=False)
    assert numbers.take_missed() == ({"c": 4}, False)
    numbers.interrupted()
    numbers.resubscribed("c", "newer", 4, lost=True)
    assert numbers.take_missed() == ({"c": 0}, False)
    numbers.interrupted()
    numbers.resubscribed("c", None, 0, lost=False)
    assert numbers.take_missed() == ({}, True)
    numbers.interrupted()
    numbers.resubscribed("c", "newer", 3, lost=False)
    assert numbers.take_missed() == ({"c": 0}, False), "restored from a snapshot: it went back"
    numbers.heard("c", "newer", 4, 1)
    assert numbers.take_missed() == ({}, True)
    numbers.interrupted()
    numbers.heard("c", "newer", 4, 2)
    numbers.resubscribed("c", "newer", 4, lost=False)
    assert numbers.take_missed() == ({"c": 0}, False)


def test_a_restored_counter_may_reach_the_same_number_again() -> None:
    """Messages heard since are not subtracted from a counter that was read before."""
    numbers = Numbers()
    numbers.heard("c", "e", 20, 1)
    numbers.interrupted()
    numbers.heard("c", "e", 20, 10)
    numbers.resubscribed("c", "e", 17, lost=True)
    assert numbers.take_missed() == ({"c": 0}, False)
    numbers.heard("c", "e", 21, 1)
    assert numbers.take_missed() == ({}, True)


def test_a_channel_that_had_no_counter_begins_at_one() -> None:
    """A subscriber from before the first message misses from the first one on."""
    numbers = Numbers()
    numbers.begin("c", NO_COUNTER, 0)
    numbers.interrupted()
    numbers.resubscribed("c", "e", 3, lost=False)
    assert numbers.take_missed() == ({"c": 3}, True)
    numbers.begin("d", "e", 7)
    numbers.heard("d", "e", 8, 1)
    assert numbers.take_missed() == ({}, True)
    numbers.resubscribed("new", "e", 8, lost=True)
    numbers.heard("new", "e", 9, 1)
    assert numbers.take_missed() == ({}, True)


def test_a_channel_that_is_heard_elsewhere_takes_its_account_with_it() -> None:
    """Messages published in between are missed there, exactly."""
    here, there = Numbers(), Numbers()
    here.begin("c", "e", 4)
    here.heard("c", "e", 5, 1)
    here.hand_over("c", there)
    there.heard("c", "e", 9, 1)
    there.resubscribed("c", "e", 8, lost=False)
    assert there.take_missed() == ({"c": 3}, True)
    assert here.take_missed() == ({}, True)
    here.heard("c", "e", 20, 1)
    assert here.take_missed() == ({}, True), "nothing is known of it any more"
    here.hand_over("unknown", there)
    assert there.take_missed() == ({}, True)


def test_a_subscription_that_was_interrupted_alone_is_in_doubt_alone() -> None:
    """Handed over to the same account."""
    numbers = Numbers()
    numbers.begin("c", "e", 4)
    numbers.begin("d", "e", 4)
    numbers.hand_over("c", numbers)
    numbers.resubscribed("c", "e", 6, lost=False)
    numbers.heard("d", "e", 5, 1)
    assert numbers.take_missed() == ({"c": 2}, True)
