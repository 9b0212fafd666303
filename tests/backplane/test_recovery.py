"""Gaps in recorded channels: what waits, what is read, and what counts as missed."""

import asyncio
from typing import Any

import pytest
from redis.exceptions import ResponseError

from cluster_pool.backplane.receiver import Receiver
from cluster_pool.core.config import Limits
from cluster_pool.core.envelope import ENVELOPE, broadcast, pack
from cluster_pool.core.keys import Keys
from cluster_pool.core.numbers import UNREADABLE, Counter, ServerChange
from cluster_pool.exceptions import BackplaneUnavailableError
from tests.backplane.contexts import context_of
from tests.support import async_test, eventually

CHANNEL = Keys().channel("room:7")
SAME, MOVED, TAKEN_OVER, LOST = ServerChange
EPOCH = "1000"


def envelope(position: int, epoch: str = EPOCH, size: int = 0, generation: int = 1) -> bytes:
    """The envelope of one message of a history."""
    text = str(position).encode().rjust(size, b"0")
    head = f"{epoch} {position} 1 sender {generation} {position}\n"
    return ENVELOPE + head.encode() + broadcast(True, text)


def texts(receiver: Receiver) -> list[int]:
    """The positions of what is in the inbox."""
    return [heard.position for heard in iter(receiver.inbox.pop, None)]


def counter(position: int, epoch: str = EPOCH, former: Any = None) -> Counter:
    """The counter of a namespace with a history."""
    return Counter(epoch, position, former, position)


class History:
    """In place of a command connection: what a history has."""

    def __init__(self, *positions: int, epoch: str = EPOCH, last: int | None = None) -> None:
        self.positions = list(positions)
        self.epoch = epoch
        self.last = positions[-1] if last is None else last
        self.page = 2
        self.asked = self.silent_at = 0
        self.refuses = False
        self.gate = asyncio.Event()
        self.gate.set()

    async def script(self, call: Any) -> list[Any]:
        """A page, as ``read_history.lua`` gives it."""
        self.asked += 1
        if self.asked == self.silent_at:
            self.gate.clear()
        await self.gate.wait()
        if self.refuses:
            raise ResponseError("NOPERM")
        start = str(call.arguments[0])
        first = int(start.lstrip("(").partition("-")[0]) + start.startswith("(")
        left = [one for one in self.positions if one >= first]
        entries = [
            [b"%d-0" % one, [b"t", b"5", b"e", envelope(one, self.epoch)]]
            for one in left[: self.page]
        ]
        more = int(len(left) > self.page)
        last = str(self.last).encode()
        return [self.epoch.encode(), last, last, b"9 9000 9", 9, entries, more]


def receiver_at(position: int, **limits: Any) -> Receiver:
    """A receiver that has heard up to a position, and was interrupted."""
    receiver = Receiver(context_of(limits=Limits(**limits) if limits else None))
    receiver.begin(CHANNEL, counter(0))
    for one in range(1, position + 1):
        receiver.hear(CHANNEL, envelope(one))
    assert texts(receiver) == list(range(1, position + 1))
    interrupt(receiver)
    return receiver


def interrupt(receiver: Receiver, *, up: bool = True) -> None:
    """Its generation ends, and was up or not."""
    receiver.recovery.interrupted()
    if up:
        receiver.interrupted(1)


def missed(receiver: Receiver) -> Any:
    """How many were missed, and whether exactly; None for no gap."""
    gap = receiver.take_gap(1.0, "test")
    return gap and (gap.namespaces.get("room:7", 0), gap.exact)


async def read(receiver: Receiver, history: Any) -> None:
    """Close the gaps."""
    async with asyncio.timeout(5):
        await receiver.recovery.read(history)


@async_test
async def test_messages_that_lie_between_are_read_and_come_first() -> None:
    """Behind it what was held; what is in both, or comes late, comes once."""
    receiver = receiver_at(2)
    for position in (6, 7):
        receiver.hear(CHANNEL, envelope(position))
    assert texts(receiver) == []
    receiver.resubscribed(CHANNEL, counter(6), SAME, 0)
    await read(receiver, History(1, 2, 3, 4, 5, 6))
    assert texts(receiver) == [3, 4, 5, 6, 7]
    for position in (6, 7, 8):
        receiver.hear(CHANNEL, envelope(position))
    assert texts(receiver) == [8]
    assert missed(receiver) is None


@async_test
async def test_messages_from_before_a_subscription_are_not_missed() -> None:
    """One that was heard too early was of an earlier subscription; nobody here is owed the next."""
    receiver = Receiver(context_of())
    receiver.hear(CHANNEL, envelope(3))
    receiver.begin(CHANNEL, counter(9))
    interrupt(receiver)
    receiver.resubscribed(CHANNEL, counter(9), SAME, 0)
    assert texts(receiver) == [3]
    receiver.hear(CHANNEL, envelope(10))
    receiver.begin(CHANNEL, counter(11))
    receiver.hear(CHANNEL, envelope(11))
    assert texts(receiver) == [10, 11]
    interrupt(receiver)
    receiver.resubscribed(CHANNEL, counter(12), SAME, 0)
    await read(receiver, History(1, 2, 3, last=12))
    assert missed(receiver) == (1, True)
    receiver.forget(CHANNEL)
    receiver.hear(CHANNEL, envelope(14))
    receiver.begin(CHANNEL, counter(13))
    interrupt(receiver)
    receiver.resubscribed(CHANNEL, counter(14), SAME, 0)
    receiver.hear(CHANNEL, envelope(15))
    assert texts(receiver) == [14, 15]


@async_test
async def test_nothing_is_read_where_nothing_was_missed() -> None:
    """The counter stands where it stood, or the first message that was heard is the next one."""
    receiver = receiver_at(2)
    receiver.resubscribed(CHANNEL, counter(2), SAME, 0)
    receiver.hear(CHANNEL, envelope(3))
    assert texts(receiver) == [3]
    interrupt(receiver)
    receiver.hear(CHANNEL, envelope(4))
    receiver.resubscribed(CHANNEL, counter(4), MOVED, 0)
    assert texts(receiver) == [4]
    assert missed(receiver) is None


@async_test
async def test_messages_that_have_left_the_history_are_missed() -> None:
    """At its beginning, between entries, and at its end."""
    receiver = receiver_at(2)
    receiver.resubscribed(CHANNEL, counter(12), SAME, 0)
    await read(receiver, History(5, 6, 9, last=12))
    assert texts(receiver) == [5, 6, 9]
    assert missed(receiver) == (2 + 2 + 3, True)


@async_test
async def test_messages_that_do_not_fit_while_they_wait_are_read() -> None:
    """Each comes once, in order, and a message that is larger than the inbox, too."""
    receiver = receiver_at(1, inbox_bytes=1000, message_bytes=1000)
    for position in range(4, 40):
        receiver.hear(CHANNEL, envelope(position, size=50))
    receiver.resubscribed(CHANNEL, counter(39), SAME, 0)
    history = History(*range(1, 40))
    history.gate.clear()
    reading = asyncio.create_task(read(receiver, history))
    await eventually(lambda: history.asked)
    for position in range(40, 60):
        receiver.hear(CHANNEL, envelope(position, size=200))
    history.positions, history.last = list(range(1, 60)), 59
    history.gate.set()
    got: list[int] = []
    while not reading.done():
        got += texts(receiver)
        await asyncio.sleep(0)
    receiver.hear(CHANNEL, envelope(60))
    assert got + texts(receiver) == list(range(2, 61))
    assert missed(receiver) is None


@async_test
async def test_a_generation_that_ends_meanwhile_is_continued_by_the_next() -> None:
    """In the middle of reading, and before it was up: nothing that was held then counts."""
    receiver = receiver_at(2)
    receiver.resubscribed(CHANNEL, counter(8), SAME, 0)
    history = History(*range(1, 9))
    history.silent_at = 2
    reading = asyncio.create_task(read(receiver, history))
    await eventually(lambda: history.asked == 2)
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    assert texts(receiver) == [3, 4]
    interrupt(receiver)
    receiver.hear(CHANNEL, envelope(9))
    interrupt(receiver, up=False)
    receiver.hear(CHANNEL, envelope(11))
    receiver.resubscribed(CHANNEL, counter(11), SAME, 0)
    await read(receiver, History(*range(1, 12)))
    assert texts(receiver) == list(range(5, 12))
    assert missed(receiver) is None


@async_test
async def test_numbers_count_where_positions_do_not_go_on() -> None:
    """Held messages come all the same, and a counter that went back hides nothing new."""
    for change, after in ((TAKEN_OVER, counter(5)), (LOST, counter(5)), (SAME, counter(3, "2000"))):
        receiver = receiver_at(3)
        epoch = after.epoch or ""
        for position in (4, 5) if epoch == EPOCH else (2, 3):
            receiver.hear(CHANNEL, envelope(position, epoch))
        held = [4, 5] if epoch == EPOCH else [2, 3]
        receiver.resubscribed(CHANNEL, after, change, 0)
        assert texts(receiver) == held
        receiver.hear(CHANNEL, envelope(held[-1] + 1, epoch))
        assert texts(receiver) == [held[-1] + 1]
        assert (missed(receiver) is None) == (change is TAKEN_OVER)
    receiver = receiver_at(9)
    receiver.resubscribed(CHANNEL, counter(4), LOST, 0)
    receiver.hear(CHANNEL, envelope(5))
    assert texts(receiver) == [5]


@async_test
async def test_a_history_that_began_where_this_process_was_is_read_from_its_beginning() -> None:
    """Under another epoch, which has the former one's last message; or the first there is."""
    receiver = receiver_at(3)
    receiver.resubscribed(CHANNEL, counter(2, "2000", (EPOCH, 3)), MOVED, 0)
    await read(receiver, History(1, 2, epoch="2000"))
    assert texts(receiver) == [1, 2]
    assert missed(receiver) is None
    receiver = receiver_at(3)
    receiver.resubscribed(CHANNEL, counter(2, "2000", (EPOCH, 4)), MOVED, 0)
    assert missed(receiver) is not None


@async_test
async def test_a_history_that_cannot_be_read_is_a_gap() -> None:
    """Redis refuses it, or it begins anew while it is read: at least that much is missed."""
    for history in (History(1, 2), History(1, 2, epoch="2000")):
        history.refuses = history.epoch == EPOCH
        receiver = receiver_at(1)
        receiver.hear(CHANNEL, envelope(4))
        receiver.resubscribed(CHANNEL, counter(4), SAME, 0)
        await read(receiver, history)
        assert texts(receiver) == [4]
        assert missed(receiver) == (2, False)


@async_test
async def test_a_channel_that_is_heard_elsewhere_or_no_more_waits_for_nothing() -> None:
    """Held messages are handed on in the one case, and forgotten in the other."""
    receiver, other = receiver_at(1), receiver_at(0)
    receiver.hear(CHANNEL, envelope(4))
    receiver.hand_over(CHANNEL, other)
    assert texts(receiver) == [4]
    receiver = receiver_at(1)
    receiver.hear(CHANNEL, envelope(4))
    receiver.resubscribed(CHANNEL, counter(4), SAME, 0)
    receiver.forget(CHANNEL)
    await read(receiver, History(1, 2))
    assert texts(receiver) == []
    receiver.hear(CHANNEL, envelope(9))
    assert texts(receiver) == [9]
    assert missed(receiver) is None


@async_test
async def test_a_counter_that_cannot_be_read_hides_nothing() -> None:
    """A slot is half moved: what was held comes, and the numbers tell the rest."""
    receiver = receiver_at(1)
    receiver.hear(CHANNEL, envelope(4))
    receiver.resubscribed(CHANNEL, Counter(UNREADABLE, 0), SAME, 0)
    assert texts(receiver) == [4]
    assert missed(receiver) == (2, False)


@async_test
async def test_messages_without_a_position_wait_in_their_place() -> None:
    """A plain PUBLISH, and an envelope after the history has ended."""
    receiver = receiver_at(1)
    receiver.hear(CHANNEL, envelope(3))
    receiver.hear(CHANNEL, b"plain")
    receiver.resubscribed(CHANNEL, counter(3), SAME, 0)
    await read(receiver, History(1, 2, 3))
    payloads = [heard.payload for heard in iter(receiver.inbox.pop, None)]
    assert payloads == [envelope(2), envelope(3), b"plain"]


@async_test
async def test_held_messages_wait_for_room_in_the_inbox() -> None:
    """Nothing that the history has is dropped for want of it: half was read, and more was held."""
    receiver = receiver_at(1, inbox_bytes=1000, message_bytes=1000)
    receiver.resubscribed(CHANNEL, counter(9), SAME, 0)
    history = History(*range(1, 10))
    history.gate.clear()
    reading = asyncio.create_task(read(receiver, history))
    await eventually(lambda: history.asked)
    for position in range(10, 20):
        receiver.hear(CHANNEL, envelope(position, size=50))
    history.gate.set()
    got: list[int] = []
    while not reading.done():
        await asyncio.sleep(0)
        got += [heard.position for heard in filter(None, [receiver.inbox.pop()])]
    assert got + texts(receiver) == list(range(2, 20))
    assert missed(receiver) is None
    receiver = receiver_at(1, inbox_bytes=1000, message_bytes=1000)
    receiver.hear("other", bytes(500))
    for position in range(2, 10):
        receiver.hear(CHANNEL, envelope(position, size=50))
    receiver.resubscribed(CHANNEL, counter(9), SAME, 0)
    reading = asyncio.create_task(read(receiver, History(*range(1, 10))))
    got = []
    while not reading.done():
        await asyncio.sleep(0)
        got += [heard.position for heard in filter(None, [receiver.inbox.pop()])]
    assert got + texts(receiver) == [0, *range(2, 10)]
    assert missed(receiver) is None


@async_test
async def test_nothing_is_read_for_a_channel_that_waits_no_more() -> None:
    """Its slot moves, or it is left, while what was read waits for room."""
    for leave in (
        lambda one, other: one.hand_over(CHANNEL, other),
        lambda one, _: one.forget(CHANNEL),
    ):
        receiver, other = receiver_at(1, inbox_bytes=1000, message_bytes=1000), receiver_at(0)
        receiver.resubscribed(CHANNEL, counter(9), SAME, 0)
        receiver.hear("other", bytes(900))
        reading = asyncio.create_task(read(receiver, History(*range(1, 10))))
        for _ in range(10):
            await asyncio.sleep(0)
        assert not reading.done()
        leave(receiver, other)
        assert receiver.inbox.pop()
        await reading
        assert texts(receiver) == []


@async_test
async def test_a_generation_that_ends_by_an_error_leaves_no_reading_behind() -> None:
    """One history cannot be read any more, while what was read of others waits for room."""
    receiver = Receiver(context_of(limits=Limits(inbox_bytes=1000, message_bytes=1000)))
    others = [Keys().channel(name) for name in ("room:8", "room:9")]
    for channel in others:
        receiver.begin(channel, counter(0))
    interrupt(receiver)
    receiver.hear("other", bytes(900))
    for channel in others:
        receiver.resubscribed(channel, counter(2), SAME, 0)
    history = History(1, 2)
    script = history.script

    async def broken(call: Any) -> Any:
        if others[1] in call.keys[0]:
            raise BackplaneUnavailableError("a replica")
        return await script(call)

    before = asyncio.all_tasks()
    history.script = broken  # type: ignore[method-assign]
    with pytest.raises(BackplaneUnavailableError):
        await read(receiver, history)
    assert asyncio.all_tasks() == before


@async_test
async def test_messages_behind_the_counter_are_heard_and_not_read() -> None:
    """A page may have it already: two sockets have no common order."""
    receiver = receiver_at(2)
    receiver.resubscribed(CHANNEL, counter(4), SAME, 0)
    history = History(*range(1, 8))
    history.page = 10
    await read(receiver, history)
    assert texts(receiver) == [3, 4]
    for position in (5, 6, 7):
        receiver.hear(CHANNEL, envelope(position))
    assert texts(receiver) == [5, 6, 7]
    assert missed(receiver) is None


def targeted(receiver: Receiver, number: int, *positions: int) -> bytes:
    """An envelope for members of a start, the last item of which has a number there."""
    head = f"{EPOCH} {number} {len(positions)} sender 1\n"
    items = [["claim", [1, "room:7", "a", b"x" * 40], f"{EPOCH} {one}"] for one in positions]
    return ENVELOPE + head.encode() + b"".join(map(pack, items))


@async_test
async def test_an_entry_of_which_a_part_was_dropped_is_read() -> None:
    """It has messages for members of this start, which did not fit, and for others behind these."""
    context = context_of(limits=Limits(inbox_bytes=1000, message_bytes=1000))
    receiver, own = Receiver(context), context.identity.start_channel
    receiver.begin(CHANNEL, counter(0))
    receiver.begin(own, Counter(EPOCH, 0))
    interrupt(receiver)
    receiver.hear(CHANNEL, envelope(1, size=950))
    receiver.hear(own, targeted(receiver, 2, 2, 3))
    history = History(1, last=5)
    recorded = ENVELOPE + f"{EPOCH} 5 4 sender 1 5\n".encode()
    recorded += b"".join(pack(["a", "*", [1, "room:7", "a", b"x"]]) for _ in range(4))
    script = history.script

    async def both(call: Any) -> list[Any]:
        reply = await script(call)
        reply[-2].append([b"5-0", [b"t", b"5", b"i", recorded]])
        return reply

    history.script = both  # type: ignore[method-assign]
    receiver.resubscribed(own, Counter(EPOCH, 2), SAME, 0)
    receiver.resubscribed(CHANNEL, counter(1), SAME, 0)
    await read(receiver, history)
    found = [(heard.position, heard.targeted) for heard in iter(receiver.inbox.pop, None)]
    assert found == [(1, False), (5, True)]
