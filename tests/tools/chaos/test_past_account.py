"""The account of those who come back on made-up books: it balances, and it finds faults."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

from tools.chaos import account, books, past
from tools.chaos.past_account import Chronicle, PastAccount

Call, Connection, Window = books.Call, books.Connection, books.Window
SEND, BROADCAST = books.SEND, books.BROADCAST
ROOM, ALONE, HOUSE = "anybody-1", "nobody-1", "users-1"
FORGETS = Window(10.0, 12.0, None, 11.0, forgets=True)
AT_B = Window(0.0, 1000.0, frozenset("b"))


def send(number: int, outcome: str = "routed", **fields: Any) -> books.Call:
    """From ``a`` to one in the room, ten seconds after the one before it."""
    begun = 100.0 + 10 * number
    call = Call(SEND, "a", number, ROOM, "one", begun, begun + 0.1, outcome)
    return call._replace(**fields)


def broadcast(number: int, outcome: str = "heard", **fields: Any) -> books.Call:
    """From ``a`` to everybody there."""
    return send(number, outcome, **{"kind": BROADCAST, "id": "", **fields})


def leg(
    *heard: int, since: float = 1.0, until: float | None = None, **fields: Any
) -> books.Connection:
    """A connection of one, that heard these numbers of ``a``; cut without a Close, if it ended."""
    ended = {"closed": until, "code": books.ABNORMAL, "left": until} if until else {}
    made: dict[str, Any] = {
        "recovered": "None" if since == 1.0 else "True",
        "began": since,
        "node": "b",
        **ended,
        **fields,
    }
    messages = [("a", number) for number in heard]
    return Connection(**{"namespace": ROOM, "id": "one", "opened": since, **made}, heard=messages)


def gap(count: int, namespace: str = "", *, exact: bool = True) -> books.Reported:
    return books.Reported("b", {namespace: count}, exact)


def made(
    calls: Iterable[books.Call],
    connections: Iterable[books.Connection],
    *windows: books.Window,
    **fields: Any,
) -> books.Books:
    """The books of a round."""
    kept = books.Past(list(calls), list(connections))
    return books.Books([], [], windows=windows, past=kept, **fields)


def judged(*words: Any, **fields: Any) -> PastAccount:
    """The account of one round."""
    return Chronicle().account(made(*words, **fields))


def only(result: PastAccount, **pairs: int) -> None:
    """Nothing failed, and there is this and no more."""
    assert result.failures == []
    assert {name.replace(" ", "_"): count for name, count in result.pairs.items()} == pairs


def fails(result: PastAccount, words: str) -> None:
    """Nothing else failed."""
    assert result.failures, result.pairs
    assert all(words in failure for failure in result.failures), result.failures


def twice(*second: int, **fields: Any) -> list[books.Connection]:
    """One that heard 1 and 2, and came back at the 27th second of the second ten."""
    return [leg(1, 2, until=125.0), leg(*second, since=127.0, **fields)]


# -- what balances -------------------------------------------------------------------------


def test_messages_of_the_past_that_come_are_received() -> None:
    """Before the cut, while the id was away, and after its return."""
    calls = [send(1), broadcast(2), send(3, begun=126.0, outcome="parked"), broadcast(4)]
    result = judged(calls, twice(3, 4))
    only(result, received=4)
    assert result.parked == 1
    assert result.returns == {"None": 1, "True": 1}


def test_messages_before_an_id_was_there_are_not_due() -> None:
    """A newcomer has no past."""
    only(judged([broadcast(1), broadcast(2)], [leg(2, since=115.0, recovered="None")]), received=1)


def test_a_loss_that_was_told_balances() -> None:
    """Redis forgot; the connection that came next was told, and hears nothing old."""
    legs = [leg(until=125.0), leg(3, since=127.0, recovered="False")]
    window = FORGETS._replace(begun=124.0, ended=127.0)
    only(judged([send(1), broadcast(2), send(3)], legs, window), told=2, received=1)


def test_an_answer_that_admits_a_loss_balances() -> None:
    """The sender knows that the message may not come."""
    refused = [send(1, "refused"), send(2, "timed_out"), send(3, "unreachable"), send(4)]
    only(judged(refused, [leg(4)], AT_B), admitted=3, received=1)


def test_a_gap_accounts_for_as_many_as_it_names() -> None:
    """A gap of the node that had the id; one that is a lower bound accounts for all."""
    calls = [send(1), send(2), broadcast(3)]
    only(judged(calls, [leg(3)], AT_B, gaps=[gap(2)]), in_a_gap=2, received=1)
    fails(judged(calls, [leg(3)], AT_B, gaps=[gap(1)]), "b missed 2 messages of its own")
    only(judged(calls, [leg(3)], AT_B, gaps=[gap(0, exact=False)]), in_a_gap=2, received=1)


def test_a_gap_is_used_once() -> None:
    """A gap that must name a message of a past does not account for another one."""
    lost = Call(SEND, "a", 9, "red", "one", 50.0, 50.1, "routed")
    there = Connection("red", "one", "b", 1.0)
    round_ = made([send(1)], [leg()], AT_B, gaps=[gap(1)])
    round_.calls, round_.connections = [lost], [there]
    owed = Chronicle().account(round_).owed
    assert account.account(round_).failures == []
    failures = account.account(round_, owed).failures
    assert "b missed 1 messages of its own" in failures[0]


def test_messages_may_come_again_after_a_cut() -> None:
    """A node cannot know that the first connection had them."""
    result = judged([send(1), broadcast(2)], twice(2))
    only(result, received=2)
    assert result.repeated == 1


def test_another_user_has_no_past() -> None:
    """A message to a user who did not come back is lost."""
    legs = [
        leg(until=115.0, namespace=HOUSE, user="alice"),
        leg(namespace=HOUSE, since=127.0, user="bob", recovered="None"),
    ]
    calls = [send(1, namespace=HOUSE, begun=116.0), broadcast(2, namespace=HOUSE)]
    only(judged(calls, legs), not_kept=2)


def test_messages_to_single_members_that_nobody_may_read_later_may_be_lost() -> None:
    """Broadcasts may not."""
    legs = [leg(until=125.0, namespace=ALONE), leg(since=127.0, namespace=ALONE)]
    late = {"begun": 124.0, "ended": 124.1, "namespace": ALONE}
    only(judged([send(1, **late)], legs), not_kept=1)
    fails(judged([broadcast(1, **late)], legs), "lost, and nobody was told")


def test_a_message_to_a_user_who_is_coming_is_for_that_user() -> None:
    """It was delivered before the handshake was answered; and may come again on the next."""
    fields: dict[str, Any] = {"namespace": HOUSE}

    def legs(began: float) -> list[books.Connection]:
        alice: dict[str, Any] = {"user": "alice", **fields}
        return [
            leg(until=105.0, user="bob", **fields),
            leg(1, since=110.3, began=began, until=120.0, **alice),
            leg(1, since=121.0, **alice),
        ]

    assert judged([send(1, **fields)], legs(109.9)).failures == []
    fails(judged([send(1, **fields)], legs(110.2)), "was for another")


def test_a_message_that_is_not_kept_may_come_behind_the_past() -> None:
    """It came while the id came back; later it may not."""
    calls = [send(1, namespace=ALONE), broadcast(2, namespace=ALONE, begun=110.2, ended=110.3)]
    fields: dict[str, Any] = {"namespace": ALONE, "recovered": "True", "began": 109.0}
    before = {"until": 105.0, "namespace": ALONE}
    only(judged(calls, [leg(**before), leg(2, 1, since=110.5, **fields)]), received=2)
    fails(judged(calls, [leg(**before), leg(2, 1, since=109.5, **fields)]), "behind 2")


def test_the_past_is_known_over_rounds() -> None:
    """A connection goes on in the next round, and so does what it has heard."""
    chronicle = Chronicle()
    first, second = leg(1, 2), leg(3, until=145.0)
    only(chronicle.account(made([send(1), send(2)], [first])), received=2)
    back = leg(3, 4, since=147.0)
    result = chronicle.account(made([send(3), send(4)], [second, back]))
    only(result, received=2)
    assert result.repeated == 1
    assert result.returns == {"True": 1}
    again = chronicle.account(made([], [replace(back, heard=[("a", 3)])]))
    fails(again, "('a', 3) twice")


# -- what it finds -------------------------------------------------------------------------


@pytest.mark.parametrize("outcome", ["routed", "delivered", "parked"])
def test_a_lost_message_is_found(outcome: str) -> None:
    """Neither received nor told; during a fault as well."""
    calls = [send(1), send(2), send(3, outcome)]
    fails(judged(calls, twice()), "lost, and nobody was told")
    fails(judged(calls, twice(), AT_B), "lost, and nobody was told")


def test_a_lost_broadcast_is_found() -> None:
    """Also one that no node heard: the history has it."""
    for outcome in ("heard", "unheard"):
        calls = [send(1), send(2), broadcast(3, outcome)]
        fails(judged(calls, twice()), "lost, and nobody was told")


def test_a_message_that_came_twice_is_found() -> None:
    """On one connection; and on the next, after a Close that was answered."""
    fails(judged([send(1)], [leg(1, 1)]), "twice")
    closed = [leg(1, 2, until=125.0, code=1012, left=None), leg(2, since=127.0)]
    fails(judged([send(1), send(2)], closed), "heard what anybody-1/one at b")


def test_a_message_that_came_again_though_its_pong_was_there_is_found() -> None:
    """Pings bound what may come again."""
    calls = [send(1), send(5)]
    legs = [leg(1, 5, until=151.0), leg(1, 5, since=152.0)]
    fails(judged(calls, legs), "send 1 of a")


def test_swapped_messages_are_found() -> None:
    """Messages of both kinds, on one connection, and among two."""
    calls = [send(1), send(2), broadcast(3), broadcast(4)]
    fails(judged(calls, [leg(2, 1, 3, 4)]), "behind 2")
    fails(judged(calls, [leg(1, 2, 4, 3)]), "behind 4")
    fails(judged(calls, [leg(1, 3, 2, 4)], AT_B), "behind 3")
    fails(judged([broadcast(1), send(2)], [leg(2, 1)], AT_B), "behind 2")
    calls = [broadcast(1, namespace=ALONE), send(2, namespace=ALONE)]
    assert judged(calls, [leg(2, 1, namespace=ALONE)], AT_B).failures == []
    fails(judged(calls, [leg(2, 1, namespace=ALONE)]), "behind 2")
    others = [broadcast(1), broadcast(1, sender="c")]
    one, two = leg(), leg(id="two")
    one.heard, two.heard = [("a", 1), ("c", 1)], [("c", 1), ("a", 1)]
    fails(judged(others, [one, two]), "no one order")


def test_messages_of_another_are_found() -> None:
    """Those of another id, of another user, of another namespace, and those that nobody sent."""
    fails(judged([send(1, id="two")], [leg(1)]), "was for another")
    legs = [
        leg(namespace=HOUSE, user="alice", until=115.0),
        leg(1, namespace=HOUSE, user="bob", since=117.0),
    ]
    fails(judged([send(1, namespace=HOUSE)], legs), "was for another")
    fails(judged([send(1, namespace=HOUSE)], [leg(1)]), "nobody sent there")
    fails(judged([], [leg(1)]), "nobody sent there")
    legs = [leg(namespace=ALONE, until=105.0), leg(1, namespace=ALONE, since=117.0)]
    fails(judged([send(1, namespace=ALONE)], legs), "was for another")


def test_an_old_message_for_one_who_begins_anew_is_found() -> None:
    """One that is told of a loss gets nothing old."""
    legs = [leg(until=105.0), leg(1, since=117.0, recovered="False")]
    fails(judged([broadcast(1)], legs, FORGETS._replace(ended=111.0)), "before it began anew")


def test_false_verdicts_are_found() -> None:
    """A loss that was none, no past for one who has one, and a past for one who has none."""
    calls = [send(1), send(2)]
    fails(judged(calls, twice(recovered="False")), "and nothing was lost")
    fails(judged(calls, twice(recovered="None")), "was told that it has none")
    fails(judged(calls, [leg(1, 2, recovered="True")]), "and has none")


def test_wrong_answers_are_found() -> None:
    """Absent though it was there lately, not sent though it arrived, and errors without a fault."""
    fails(judged([send(1, "absent")], [leg(until=105.0), leg(since=117.0)]), "nothing was wrong")
    fails(judged([send(1, "absent")], [leg(1)], AT_B), "arrived all the same")
    fails(judged([send(1, "not_sent")], [leg(1)], AT_B), "arrived all the same")
    fails(judged([send(1, "unknown")], [leg(1)]), "nothing was wrong")
    fails(judged([send(1, "refused")], [leg()]), "nothing was wrong")


def test_each_kind_of_namespace_has_members() -> None:
    """A dense one of each, others of one member or two, and users where there are to be some."""
    names = past.names(12)
    assert {name.rpartition("-")[0] + "-" for name in names} == {*past.KINDS}
    assert [len(past.ids(name)) for name in names] == [6] * 3 + [2] * 3 + [1] * 3 + [2] * 3
    assert all(past.has_past(name) for name in names)
    assert not any(past.has_past(name) for name in ("red", "user-1", "house-0", "room-1"))
