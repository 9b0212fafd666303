"""Receipts: which answer of a client counts, for whom, and for how long."""

from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster_pool import SendResult
from cluster_pool.core.message import Outgoing
from cluster_pool.local.receipts import MANY_BYTES, MANY_MESSAGES, MOST_PINGS, PAUSE, Receipts

TWO = Outgoing.join((Outgoing(True, b"one"), Outgoing(False, b"22")))
LARGE = Outgoing(True, b"x" * MANY_BYTES)
RECEIVED, TIMED_OUT = SendResult.RECEIVED, SendResult.TIMED_OUT


class Numbered:
    """An account whose word for what is written is a number."""

    recovered = None

    def __init__(self) -> None:
        self.number = 0
        self.told: list[Any] = []

    def written(self) -> int:
        return self.number

    def closing(self, *, opened: bool) -> None:
        raise AssertionError("receipts do not tell that")

    def received(self, written: Any) -> None:
        self.told.append(written)

    def over(self) -> None:
        self.told.append("over")


class Waiting:
    """Receipts, with a list of what was told to whom."""

    def __init__(self) -> None:
        self.pings = 0
        self.now = 10.0
        self.told: list[tuple[str, SendResult]] = []
        self.receipts = Receipts(self._ping)

    def _ping(self) -> None:
        self.pings += 1

    def add(self, name: str, until: float = 1.0) -> None:
        self.receipts.add((until, lambda result: self.told.append((name, result))))

    def ping(self, *, now: bool = False) -> bytes:
        payload = self.receipts.next_ping(now=now)
        assert payload is not None
        return payload


def test_one_ping_is_for_all_that_wait() -> None:
    """A ping is wanted once for many, and sent only if one waits."""
    one = Waiting()
    assert one.receipts.next_ping() is None
    one.add("a")
    one.add("b")
    assert (one.pings, one.receipts.waiting) == (1, 2)
    payload = one.ping()
    assert one.receipts.next_ping() is None
    one.add("c")
    assert one.receipts.pong(payload)
    assert one.told == [("a", RECEIVED), ("b", RECEIVED)]
    assert one.receipts.waiting == 1


def test_payloads_are_never_used_twice() -> None:
    """Not for two connections either: another's Pong is none of ours."""
    one, other = Waiting(), Waiting()
    one.add("a")
    other.add("b")
    first, second = one.ping(), other.ping()
    assert first != second
    assert not one.receipts.pong(second)
    assert one.receipts.pong(first)
    assert not one.receipts.pong(first)
    assert (one.told, other.told) == ([("a", RECEIVED)], [])


@pytest.mark.parametrize("garbage", [b"", b"x", bytes(8), bytes(125)])
def test_garbage_answers_nothing(garbage: bytes) -> None:
    """Nor does the payload of the ping that will come next."""
    one = Waiting()
    one.add("a")
    payload = one.ping()
    assert not one.receipts.pong(garbage)
    assert not one.receipts.pong(payload + b"x")
    assert not one.receipts.pong((int.from_bytes(payload) + 1).to_bytes(8))
    assert one.told == []


def test_a_pong_answers_earlier_pings_and_no_later_one() -> None:
    """Those that it skips cannot be answered any more."""
    one = Waiting()
    payloads = []
    for name in "abc":
        one.add(name)
        payloads.append(one.ping())
    assert one.receipts.pong(payloads[1])
    assert one.told == [("a", RECEIVED), ("b", RECEIVED)]
    assert not one.receipts.pong(payloads[0])
    assert one.receipts.pong(payloads[2])


def test_few_pings_are_unanswered_at_a_time() -> None:
    """Later ones share the next ping, which is sent after an answer, or before a close."""
    one = Waiting()
    payloads = []
    for at in range(MOST_PINGS):
        one.add(str(at))
        payloads.append(one.ping())
    one.add("later")
    one.add("last")
    assert one.receipts.next_ping() is None
    wanted = one.pings
    assert one.receipts.pong(payloads[0])
    assert one.pings == wanted + 1
    assert one.receipts.pong(one.ping())
    assert len(one.told) == MOST_PINGS + 2
    for _ in range(MOST_PINGS + 1):
        one.add("closing")
        one.ping(now=True)


def test_late_ones_are_forgotten() -> None:
    """A late Pong tells nobody of them."""
    one = Waiting()
    one.add("a", until=1.0)
    one.add("b", until=3.0)
    payload = one.ping()
    one.add("c", until=1.0)
    assert one.receipts.expire(2.0)
    assert one.receipts.waiting == 1
    assert one.receipts.pong(payload)
    assert one.told == [("b", RECEIVED)]
    assert not one.receipts.expire(2.0)


def test_pings_without_waiters_make_room() -> None:
    """Not before that is another sent, unless it must be now; the next one proves the same."""
    one = Waiting()
    for at in range(MOST_PINGS):
        one.add(str(at), until=2.0 if at == 1 else 1.0)
        payload = one.ping()
    one.add("new", until=3.0)
    assert one.receipts.next_ping() is None
    pings = one.pings
    assert one.receipts.expire(1.5)
    assert one.pings == pings + 1
    one.ping()
    one.add("newer", until=3.0)
    assert one.receipts.next_ping() is None
    one.ping(now=True)
    assert one.receipts.pong(payload)
    assert one.told == [("1", RECEIVED)]
    assert one.receipts.waiting == 2


def test_account_says_what_was_written_and_received() -> None:
    """A ping marks what was written before it; an answered Close marks all."""
    one = Waiting()
    receipts = one.receipts
    receipts.wrote(TWO)
    receipts.ask()
    first = one.ping()
    receipts.wrote(TWO)
    assert (receipts.written, receipts.received) == ((4, 10), (0, 0))
    assert receipts.pong(first)
    assert receipts.received == (2, 5)
    receipts.end(received=True)
    assert receipts.received == (4, 10)
    lost = Waiting().receipts
    lost.wrote(TWO)
    lost.end(received=False)
    assert (lost.written, lost.received) == ((2, 5), (0, 0))


def test_kept_account_asks_by_itself() -> None:
    """After many messages or bytes, and once a second at most."""
    for outgoing, times in ((TWO, MANY_MESSAGES // 2), (LARGE, 1)):
        one = Waiting()
        one.receipts.clock = partial(getattr, one, "now")
        for _ in range(times):
            assert one.pings == 0
            one.receipts.wrote(outgoing)
        assert one.pings == 1
        one.ping()
        for _ in range(2 * times):
            one.receipts.wrote(outgoing)
        assert one.pings == 1
        one.now += PAUSE
        one.receipts.wrote(outgoing)
        assert one.pings == 2


def test_the_end_is_told_to_all() -> None:
    """Also to those for whom no ping was sent; once."""
    one = Waiting()
    one.add("a")
    payload = one.ping()
    one.add("b")
    one.receipts.end(received=False)
    one.receipts.end(received=True)
    assert not one.receipts.pong(payload)
    assert one.told == [("a", TIMED_OUT), ("b", TIMED_OUT)]


def test_an_account_is_told_what_each_pong_proves() -> None:
    """Its word at the time of the ping, in order; of an answered Close, that at the Close."""
    one, account = Waiting(), Numbered()
    one.receipts.account = account
    pings = []
    for account.number in (1, 2, 3):
        one.receipts.ask()
        pings.append(one.ping())
    account.number = 4
    assert one.receipts.pong(pings[1])
    assert not one.receipts.pong(pings[0])
    assert account.told == [1, 2]
    one.receipts.closed_at = 4
    account.number = 5
    one.receipts.end(received=True)
    assert account.told == [1, 2, 4, "over"]


def test_an_account_without_an_answer_is_told_of_the_end_alone() -> None:
    """All that was written since the last Pong may be missing."""
    one, account = Waiting(), Numbered()
    one.receipts.account = account
    one.receipts.ask()
    one.ping()
    one.receipts.end(received=False)
    assert account.told == ["over"]


OPERATIONS = st.one_of(
    st.tuples(st.just("add"), st.integers(1, 30)),
    st.tuples(st.just("ping"), st.booleans()),
    st.tuples(st.just("pong"), st.integers(0, 60)),
    st.tuples(st.just("expire"), st.integers(0, 30)),
)


@given(st.lists(OPERATIONS, max_size=150))
def test_only_a_ping_behind_it_proves_a_message(operations: list[tuple[str, Any]]) -> None:
    """In any order of sends, pings, answers (also old ones, twice) and expiries."""
    one = Waiting()
    sent: list[bytes] = []
    behind: dict[str, int] = {}  # the number of pings that were sent before a message
    answered = 0  # pings that were answered, or implied by a later answer
    for name, value in operations:
        if name == "add":
            behind[str(len(behind))] = len(sent)
            one.add(str(len(behind) - 1), until=float(value))
        elif name == "ping":
            payload = one.receipts.next_ping(now=bool(value))
            if payload is not None:
                assert payload not in sent
                sent.append(payload)
        elif name == "pong" and value < len(sent):
            if one.receipts.pong(sent[value]):
                answered = max(answered, value + 1)
        elif name == "expire":
            one.receipts.expire(float(value))
        assert all(behind[message] < answered for message, _ in one.told)
        assert len(one.told) == len({message for message, _ in one.told})
        assert 0 <= one.receipts.waiting <= len(behind) - len(one.told)
    one.add("last", until=99.0)
    behind["last"] = len(sent)
    assert one.receipts.pong(one.ping(now=True))
    assert ("last", RECEIVED) in one.told
    assert one.receipts.waiting == 0
