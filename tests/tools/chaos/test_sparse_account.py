"""The account of the quiet namespaces: clients that leave, absent ids, calls without a message."""

from dataclasses import replace

import pytest

from tests.tools.chaos.test_account import (
    ALWAYS,
    BROADCAST,
    CONFIRM,
    SEND,
    broadcast,
    fails,
    gap,
    made,
    member,
    only,
    send,
)
from tools.chaos import books

QUIET = "user-1"
GONE = {"closed": 11.5, "left": 11.4, "code": 1000}
"""The fields of a connection whose client left while messages 1 were under way."""


def test_sparse_messages_have_rows_of_their_own() -> None:
    """Messages to a quiet namespace are counted apart."""
    calls = [send(1, namespace=QUIET), broadcast(2, namespace=QUIET)]
    there = replace(member(1, 2), namespace=QUIET)
    result = made(calls, [there])
    only(result, f"sparse {SEND}", delivered=1)
    only(result, f"sparse {BROADCAST}", delivered=1)
    assert result.rows[SEND].total() == 0


@pytest.mark.parametrize("outcome", ["routed", "delivered", "timed_out"])
def test_a_client_that_leaves_excuses_messages_under_way(outcome: str) -> None:
    """Nothing was wrong."""
    only(made([send(1, outcome)], [member(**GONE)]), SEND, with_its_connection=1)
    only(made([broadcast(1)], [member(**GONE)]), BROADCAST, with_its_connection=1)


def test_a_client_that_leaves_much_later_must_have_got_the_message() -> None:
    """Leaving is no excuse for what was lost before."""
    late = {"closed": 90.0, "left": 90.0, "code": 1000}
    fails(made([send(1)], [member(**late)]), "lost while nothing was wrong")
    fails(made([send(1, "delivered")], [member(**late)]), "never arrived")
    fails(made([broadcast(1)], [member(**late)]), "while nothing was wrong")
    fails(made([broadcast(1, "unheard")], [member(**late)]), "while nothing was wrong")
    fails(made([send(1, "absent")], [member(**late)]), "while nothing was wrong")


def test_a_send_to_a_client_that_left_long_ago_is_absent() -> None:
    """If it was routed all the same, the node must have counted it."""
    gone = member(closed=5.0, left=5.0, code=1000)
    only(made([send(1, "absent")], [gone]), SEND, refused=1)
    only(made([send(1)], [gone], undelivered=1), SEND, undelivered=1)
    fails(made([send(1)], [gone]), "met no connection")
    fails(made([send(1, "delivered")], [gone]), "never arrived")


def test_a_client_that_comes_while_a_message_is_under_way_need_not_get_it() -> None:
    """Its id may have been absent, or have led to a node that gave the claim up again."""
    came = replace(member(), opened=11.05)
    only(made([send(1, "absent")], [came]), SEND, refused=1)
    only(made([send(1, "timed_out")], [came], undelivered=1), SEND, undelivered=1)


def test_a_send_without_a_member_must_be_absent() -> None:
    """Absent is the one true answer."""
    only(made([send(1, "absent", id="nobody")], [member()]), SEND, refused=1)
    for outcome in ("routed", "delivered", "timed_out"):
        call = send(1, outcome, id="nobody", kind=CONFIRM)
        fails(made([call], [member()], ALWAYS), "to nobody")
    fails(made([send(1, "not_sent", id="nobody")], [member()]), "while nothing was wrong")


def test_only_a_connection_with_a_close_for_it_is_closed() -> None:
    """By the last message that it heard, or by a close without one."""
    then_close = send(1, kind=books.THEN_CLOSE, namespace=QUIET)
    closed = replace(member(1, closed=11.5, code=books.SENT_AND_CLOSED), namespace=QUIET)
    only(made([then_close], [closed]), f"sparse {books.THEN_CLOSE}", delivered=1)
    fails(made([send(1, namespace=QUIET)], [closed]), "was closed with 4001")
    fails(made([then_close], [replace(closed, heard=[])], undelivered=1), "was closed with 4001")
    ordered = member(closed=11.5, code=books.ORDERED)
    close = send(1, "delivered", kind=books.CLOSE)
    result = made([close], [ordered])
    assert result.failures == []
    assert result.others == {books.CLOSE: 1}
    fails(made([], [ordered]), "was closed with 4002")
    fails(made([close], [member()]), "stays open")


def test_the_registrys_answers_must_be_true() -> None:
    """About members that were there all the time, unless something was wrong."""
    there = member()
    for kind, true, false in (
        (books.COUNT, "=1", "=0"),
        (books.MEMBERS, "=one two", "=two"),
        (books.LOCATE, "=b", "=c"),
    ):
        for answer in (true, false, "not_sent"):
            call = send(1, answer, kind=kind, id="one" if kind == books.LOCATE else "")
            assert made([call], [there], ALWAYS).failures == []
            assert bool(made([call], [there]).failures) is (answer != true), (kind, answer)


def test_an_unanswered_call_fails() -> None:
    """With who made it, when, and under which fault."""
    late = books.Unanswered("a", "send 1 to red/one", 13.5, 3.1)
    result = made([send(1, "unknown")], [member()], ALWAYS, unanswered=[late])
    assert result.unanswered == 1
    fails(result, "send 1 to red/one of a was not answered within 3.1 s, +10.4 s")


def test_work_that_goes_on_at_rest_fails() -> None:
    """A program has calls or tasks when it should be at rest."""
    fails(made([], [], restless=["a is quiet and has 2 pending"]), "2 pending")


def test_a_send_right_behind_a_broadcast_is_counted_and_its_order_checked() -> None:
    """As that is where one overtakes the other."""
    calls = [broadcast(1, namespace=QUIET), send(2, namespace=QUIET)]
    right, wrong = (replace(member(*heard), namespace=QUIET) for heard in ((1, 2), (2, 1)))
    assert made(calls, [right]).followed == 1
    assert made(calls, [right]).failures == []
    fails(made(calls, [wrong]), "heard 1 of a after 2")


def test_a_gap_may_name_a_close() -> None:
    """A close that its node missed is one of its messages."""
    close = send(1, "timed_out", kind=books.CLOSE)
    assert made([close], [member()], ALWAYS, gaps=[gap(1)]).failures == []


def test_the_last_one_is_told_once_and_truly() -> None:
    """When the last one leaves, its node's callback fires; otherwise it does not."""
    calls = [broadcast(at, "unheard", namespace="blue") for at in (1, 90)]
    left = member(closed=50.0, left=50.0, code=1000)
    told = books.Emptied("b", "red", 50.1)
    assert made(calls, [left], emptied=[told]).failures == []
    assert made(calls, [left], emptied=[told]).last_ones == 1
    fails(made(calls, [left], emptied=[]), "told 0 times")
    fails(made(calls, [left], emptied=[told, told]), "told 2 times")
    assert made(calls, [left], books.Window(40.0, 47.0, None), emptied=[]).failures == []
    fails(made(calls, [left], books.Window(40.0, 47.0, frozenset()), emptied=[]), "0 times")
    other = member(id="two")
    assert made(calls, [left, other], emptied=[]).failures == []
    fails(made(calls, [left, other], emptied=[told]), "red/two at b was there")
    assert made(calls, [left, other], ALWAYS, emptied=[told]).failures == []
    back = replace(member(), opened=50.2)
    assert made(calls, [left, back], emptied=[]).failures == []
