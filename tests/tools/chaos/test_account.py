"""The account of scripts/chaos on made-up books: it balances, and it finds faults."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

from tools.chaos import account, books, growth, order

Books, Call, Connection = books.Books, books.Call, books.Connection
SEND, CONFIRM, BROADCAST, PUBLISH = books.KINDS
ALWAYS = books.Window(0.0, 100.0, None)


def send(number: int, outcome: str = "routed", **fields: Any) -> Call:
    """From ``a`` to red/one; every message takes a tenth of a second."""
    begun = 10.0 + number
    call = Call(SEND, "a", number, "red", "one", begun, begun + 0.1, outcome)
    return call._replace(**fields)


def broadcast(number: int, outcome: str = "heard", **fields: Any) -> Call:
    """From ``a`` to everybody in red."""
    return send(number, outcome, **{"kind": BROADCAST, "id": "", **fields})


def member(*heard: int, id: str = "one", node: str = "b", **fields: Any) -> Connection:
    """A connection that was open all the time and heard these numbers of ``a``."""
    return Connection("red", id, node, 1.0, heard=[("a", number) for number in heard], **fields)


def gap(count: int, namespace: str = "", *, node: str = "b", exact: bool = True) -> books.Reported:
    return books.Reported(node, {namespace: count}, exact)


def made(
    calls: Iterable[Call], connections: Iterable[Connection], *windows: books.Window, **fields: Any
) -> account.Account:
    """The account of these books."""
    return account.account(Books(list(calls), list(connections), windows=windows, **fields))


def only(result: account.Account, kind: str, **columns: int) -> None:
    """Nothing failed, and of this kind there is this and no more."""
    assert result.failures == []
    row = {name.replace(" ", "_"): count for name, count in result.rows[kind].items() if count}
    calls = row.pop("calls")
    assert row == columns
    if kind in (SEND, CONFIRM):
        assert sum(row.values()) == calls


def fails(result: account.Account, words: str) -> None:
    assert any(words in failure for failure in result.failures), result.failures


# -- what balances -------------------------------------------------------------------------


def test_messages_that_arrived_once_in_order_are_delivered() -> None:
    """Everything arrived, once and in order."""
    calls = [send(1), send(2, "delivered", kind=CONFIRM), broadcast(3)]
    result = made(calls, [member(1, 2, 3), member(3, id="two", node="c")])
    only(result, SEND, delivered=1)
    only(result, CONFIRM, delivered=1)
    only(result, BROADCAST, delivered=2)


def test_messages_of_the_command_line_have_rows_of_their_own() -> None:
    """Each run is a sender of its own, and is held to the same rules."""
    heard = [replace(member(), heard=[("command-1", 1)])]
    result = made([send(1, sender="command-1"), send(2, sender="command-2")], heard)
    assert result.rows["command send"]["delivered"] == 1
    fails(result, "2 of command-2 to red/one, routed: lost while nothing was wrong")


def test_a_message_that_a_gap_reports_is_missing() -> None:
    """A gap of the owner's node accounts for as many as it names."""
    result = made([send(1), send(2), send(3)], [member(3)], ALWAYS, gaps=[gap(2)])
    only(result, SEND, missing=2, delivered=1)


def test_a_broadcast_that_a_gap_reports_is_missing_for_each_connection() -> None:
    """A node that missed it missed it for all of its connections."""
    connections = [member(), member(id="two"), member(1, id="three", node="c")]
    result = made([broadcast(1)], connections, ALWAYS, gaps=[gap(1, "red")])
    only(result, BROADCAST, missing=2, delivered=1)


def test_a_lower_bound_is_held_to_no_more() -> None:
    """Redis cannot count what it forgot; the gap says so, and the account counts such gaps."""
    calls = [send(1), send(2), send(3)]
    result = made(calls, [member()], ALWAYS, gaps=[gap(1, exact=False)])
    only(result, SEND, missing=3)
    assert result.bounds == 1
    fails(made(calls, [member()], ALWAYS, gaps=[gap(4, exact=False)]), "only 3 did not arrive")


def test_a_gap_may_name_what_is_in_no_books() -> None:
    """Messages to users count for gaps, and for no more than there were."""
    assert made([send(1)], [member()], ALWAYS, gaps=[gap(2)], unkept={"": 1}).failures == []
    too_many = made([send(1)], [member()], ALWAYS, gaps=[gap(3)], unkept={"": 1})
    fails(too_many, "only 2 did not arrive")


@pytest.mark.parametrize("outcome", ["absent", "unreachable", "refused"])
def test_a_refused_send_that_did_not_arrive_is_true(outcome: str) -> None:
    """An answer that says no is true when nothing arrives."""
    only(made([send(1, outcome)], [member()], ALWAYS), SEND, refused=1)


def test_a_send_of_unknown_outcome_may_arrive_or_not() -> None:
    """It may have arrived or not."""
    result = made([send(1, "unknown"), send(2, "unknown")], [member(2)], ALWAYS)
    only(result, SEND, unknown=1, delivered=1)


def test_a_send_that_counts_as_not_sent_must_not_arrive() -> None:
    """It must not have arrived, and has not."""
    only(made([send(1, "not_sent")], [member()], ALWAYS), SEND, not_sent=1)
    only(made([broadcast(1, "not_sent")], [member()], ALWAYS), BROADCAST, not_sent=1)


@pytest.mark.parametrize("outcome", ["routed", "delivered", "timed_out"])
def test_a_message_may_be_lost_with_its_connection(outcome: str) -> None:
    """The connection broke after the call began, with its node."""
    broken = member(closed=11.5, code=1006)
    result = made([send(1, outcome)], [broken], ALWAYS, killed=frozenset("b"))
    only(result, SEND, with_its_connection=1)


def test_a_message_may_be_lost_between_two_connections_of_an_id() -> None:
    """Until the id is taken again the registry names its last owner, whose node may be dead."""
    dead = member(closed=10.9, code=1006)
    back = replace(member(node="c"), opened=11.05)
    window = books.Window(10.8, 11.2, frozenset("b"))
    result = made([send(1, "timed_out")], [dead, back], window, killed=frozenset("b"))
    only(result, SEND, with_its_connection=1)


def test_an_undelivered_message_must_be_counted() -> None:
    """The owner had lost the id when it arrived, and counted that."""
    older = member(closed=11.5, code=4409)
    newer = replace(member(), opened=11.05)
    result = made([send(1)], [older, newer], ALWAYS, undelivered=1)
    only(result, SEND, undelivered=1)
    fails(made([send(1)], [older, newer], ALWAYS), "met no connection")


def test_a_broadcast_is_due_to_members_of_its_whole_time() -> None:
    """Not to one that had left, nor to one that came while it was under way."""
    left = member(closed=5.0, code=4409, id="two")
    came = replace(member(id="two"), opened=11.05)
    only(made([broadcast(1)], [member(1), left, came]), BROADCAST, delivered=1)


def test_a_raw_publish_may_miss_a_broken_node() -> None:
    """It may miss a node while something is broken there, and only then."""
    call = broadcast(1, kind=PUBLISH)
    window = books.Window(11.0, 12.0, frozenset("b"))
    only(made([call], [member()], window), PUBLISH, missing=1)
    elsewhere = window._replace(nodes=frozenset("c"))
    fails(made([call], [member()], elsewhere), "did not arrive at red/one at b")


# -- what is wrong -------------------------------------------------------------------------


def test_a_duplicate_fails() -> None:
    """The same message twice at a connection, or at two of one id."""
    fails(made([send(1)], [member(1, 1)], ALWAYS), "2 times")
    fails(made([broadcast(1)], [member(1, 1)], ALWAYS), "2 times")
    again = replace(member(1), opened=20.0)
    fails(made([send(1)], [member(1), again], ALWAYS), "arrived 2 times")


def test_a_loss_without_a_gap_fails() -> None:
    """It was routed, its connection stayed open, and no gap covers it, or too small a one."""
    fails(made([send(1)], [member()], ALWAYS), "its gaps report 0")
    fails(made([send(1), send(2)], [member()], ALWAYS, gaps=[gap(1)]), "its gaps report 1")
    fails(made([broadcast(1)], [member()], ALWAYS), "its gaps report 0")
    of_another = [gap(1, "red", node="c")]
    fails(made([broadcast(1)], [member()], ALWAYS, gaps=of_another), "its gaps report 0")


def test_a_loss_is_counted_as_a_failure() -> None:
    """The column of failures has the pairs that no gap accounts for."""
    connections = [member(), member(id="two")]
    result = made([broadcast(1), broadcast(2)], connections, ALWAYS, gaps=[gap(1, "red")])
    assert result.rows[BROADCAST]["failures"] == result.rows[BROADCAST]["missing"] == 2


def test_a_loss_without_a_fault_fails() -> None:
    """A gap is no excuse without a fault."""
    fails(made([send(1)], [member()], gaps=[gap(1)]), "while nothing was wrong")
    fails(made([broadcast(1)], [member()], gaps=[gap(1, "red")]), "while nothing was wrong")


def test_a_loss_during_another_nodes_fault_fails() -> None:
    """A fault at another node, or long ago, is no excuse."""
    for window in (books.Window(11.0, 12.0, frozenset("c")), books.Window(1.0, 5.0, None)):
        fails(made([send(1)], [member()], window, gaps=[gap(1)]), "while nothing was wrong")


def test_a_gap_that_is_too_large_fails() -> None:
    """A gap names no more than did not arrive."""
    result = made([send(1), send(2)], [member(2)], ALWAYS, gaps=[gap(2)])
    fails(result, "only 1 did not arrive")
    result = made([broadcast(1)], [member(1)], ALWAYS, gaps=[gap(1, "red")])
    fails(result, "only 0 did not arrive")


def test_a_wrong_order_fails() -> None:
    """From one sender to one connection, targeted and broadcast together."""
    fails(made([send(1), broadcast(2)], [member(2, 1)], ALWAYS), "heard 1 of a after 2")


def test_broadcasts_without_one_order_fail() -> None:
    """Two members see two senders' broadcasts in two orders."""
    calls = [broadcast(1), broadcast(1, sender="c")]
    one = replace(member(), heard=[("a", 1), ("c", 1)])
    two = replace(member(id="two", node="c"), heard=[("c", 1), ("a", 1)])
    fails(made(calls, [one, two], ALWAYS), "no one order of broadcasts in red")


def test_a_message_at_a_wrong_connection_fails() -> None:
    """It arrives where it was not sent, or was sent by no program."""
    fails(made([send(1)], [member(1, id="two"), member()], ALWAYS), "what was for another")
    fails(made([], [member(1)]), "which nobody sent")


@pytest.mark.parametrize("outcome", ["absent", "unreachable", "refused", "not_sent"])
def test_a_false_answer_is_a_failure(outcome: str) -> None:
    """A message that was reported as not delivered arrived."""
    fails(made([send(1, outcome)], [member(1)], ALWAYS), "arrived all the same")


@pytest.mark.parametrize("outcome", ["unheard", "not_sent"])
def test_a_false_answer_to_a_broadcast_is_a_failure(outcome: str) -> None:
    """It was reported as unheard, but a member got it."""
    fails(made([broadcast(1, outcome)], [member(1)], ALWAYS), "arrived 1 times")


def test_a_confirmed_message_that_did_not_arrive_fails() -> None:
    """A gap is no excuse when the owner reported it as delivered, nor is a clean close."""
    fails(made([send(1, "delivered")], [member()], ALWAYS, gaps=[gap(1)]), "never arrived")
    closed = [member(closed=11.5, code=4409), replace(member(), opened=11.6)]
    fails(made([send(1, "delivered")], closed, ALWAYS), "never arrived")


@pytest.mark.parametrize("outcome", ["absent", "timed_out", "unknown", "not_sent"])
def test_an_error_without_a_fault_fails(outcome: str) -> None:
    """When nothing is broken every send to an open connection works."""
    fails(made([send(1, outcome)], [member()]), "while nothing was wrong")


def test_a_broadcast_for_some_connections_of_a_node_fails() -> None:
    """A node hears it or does not; no connection of it is left out."""
    result = made([broadcast(1)], [member(1), member(id="two")], ALWAYS, gaps=[gap(1, "red")])
    fails(result, "heard by others at its node")


def test_a_broadcast_for_some_nodes_fails() -> None:
    """Once it has arrived anywhere it was published, whatever its sender knows."""
    connections = [member(1), member(id="two", node="c")]
    fails(made([broadcast(1, "unknown")], connections, ALWAYS), "c missed 1 messages of red")


def test_a_connection_closed_without_a_reason_fails() -> None:
    """Only the death of its node and a newer connection of its id may end one."""
    closed = member(closed=20.0, code=1006)
    fails(made([], [closed], ALWAYS), "was closed with 1006")
    assert made([], [closed], killed=frozenset("b")).failures == []
    taken = replace(closed, code=4409)
    fails(made([], [taken], ALWAYS), "was closed with 4409")
    newer = replace(member(), opened=19.0)
    assert made([], [taken, newer], ALWAYS).failures == []
    fails(made([], [closed, newer], ALWAYS), "was closed with 1006")


def test_messages_after_a_takeover_are_not_for_the_older_connection() -> None:
    """A newer connection has the id, so the older one must not get later messages."""
    older = member(1, 2, closed=20.0, code=4409)
    newer = replace(member(2, node="c"), opened=11.5)
    calls = [broadcast(1), broadcast(2)]
    fails(made(calls, [older, newer], ALWAYS), "s after it was taken over: broadcast 2 of a")
    gone_again = replace(newer, closed=11.9, left=11.9, code=1000)
    assert made(calls, [older, gone_again], ALWAYS).failures == []
    gone_amid = replace(newer, closed=90.0, left=90.0, code=1000)
    assert made(calls, [older, gone_amid], ALWAYS).failures == []
    fails(made(calls, [older, gone_amid], ALWAYS._replace(ended=50.0)), "s after it was taken over")
    cut_off = books.Window(10.0, 13.0, frozenset("b"))
    assert made(calls, [older, newer], cut_off).failures == []
    published = [call._replace(kind=PUBLISH) for call in calls]
    assert made(published, [older, newer], cut_off).failures == []
    fails(made(published, [older, newer], ALWAYS), "s after it was taken over")
    targeted = send(2)
    fails(made([broadcast(1), targeted], [older, newer], cut_off), "after it was taken over")
    own = [call._replace(sender="b") for call in (broadcast(1), targeted)]
    its_own = replace(older, heard=[("b", 1), ("b", 2)])
    told_late, unheard = replace(older, heard=[("b", 2)]), replace(newer, heard=[])
    for delay, failures in ((0.9, 0), (1.1, 1)):
        after = [own[1]._replace(begun=newer.opened + delay)]
        assert len(made(after, [told_late, unheard], ALWAYS).failures) == failures, delay
    assert made(own, [its_own, replace(newer, heard=[])], cut_off).failures == []
    only(made(calls, [replace(older, heard=[("a", 1)]), newer], ALWAYS), BROADCAST, delivered=2)
    both = [replace(older, heard=[("a", 1)]), replace(newer, heard=[])]
    fails(made([send(1, begun=12.0)], both, ALWAYS), "taken over")


def test_the_registry_must_have_the_open_connections() -> None:
    """It has every connection that is open, where it is, and nothing else."""
    here, gone = member(), member(id="two", closed=20.0, code=1006)
    killed = frozenset("b")

    def of(*members: str) -> account.Account:
        registry = [books.Registered("red", *one.split("@")) for one in members]
        return made([], [here, gone], ALWAYS, killed=killed, registry=registry)

    assert of("one@b").failures == []
    fails(of(), "red/one at b is open and not registered")
    fails(of("one@b", "two@b"), "red/two at b is a ghost")
    fails(of("one@c"), "red/one at c is a ghost")


# -- its parts -----------------------------------------------------------------------------


def test_lists_that_agree_have_one_order() -> None:
    """They may lack messages; a cycle has no order."""
    assert order.without_one_order([[1, 2, 3], [1, 3, 4], [2, 4], [5], []]) == []
    assert sorted(order.without_one_order([[1, 2, 3], [3, 1]])) == [1, 2, 3]


def test_accounts_add_up() -> None:
    """A run is the sum of its rounds."""
    total = made([send(1)], [member(1)])
    total.add(made([send(1), send(2)], [member(1)], ALWAYS, gaps=[gap(1)]))
    only(total, SEND, delivered=2, missing=1)


def samples(memory: Iterable[int], *, tasks: int = 5) -> list[growth.Sample]:
    """One a minute; a megabyte is 1024 * 1024 bytes."""
    counts = [5, *[tasks] * 100]
    return [
        growth.Sample(60.0 * at, "a", size * growth.MIB, counts[at], 10)
        for at, size in enumerate(memory)
    ]


def test_growth_is_found() -> None:
    """A megabyte a minute is sixty an hour; tasks and descriptors must come back."""
    (grown,) = growth.growth(samples(range(100, 140)), 40)
    assert grown.slope == pytest.approx(60.0)
    assert grown.failures() == []
    (grown,) = growth.growth(samples([100] * 40, tasks=9), 40)
    assert grown.slope == pytest.approx(0.0)
    assert grown.failures() == ["a has 9 tasks, and had 5 at the begin"]
    assert growth.growth(samples([100] * 39), 40) == []
