"""The streams of a program: many messages to a few namespaces, and a few to many others."""

import asyncio
import random
import time
from collections.abc import Callable, Sequence

from cluster_pool import Limits
from tools.chaos import sparse
from tools.chaos.books import BROADCAST, CLOSE, CONFIRM, COUNT, LOCATE, MEMBERS, SEND, THEN_CLOSE
from tools.chaos.caller import Caller

MIX = (SEND, SEND, SEND, SEND, SEND, CONFIRM, CONFIRM, BROADCAST, BROADCAST, BROADCAST)
LOOK = 0.5
"""Seconds between two looks at which namespaces may be spoken to again."""
WAKINGS = 4
"""Pairs that are said then."""
LARGE_ONE = 1
"""The pair of these whose broadcast is large."""
LATE = 0.1
"""Seconds of its schedule that a stream which was held up makes good for; the rest it lets go."""


def large_for(programs: int) -> int:
    """Bytes of a large message, of which all programs together say no more than an outbox holds.

    A node that was held up hands on at once what was said meanwhile. A client that does not read at
    that moment is closed with 1013 where this is more.
    """
    return Limits().outbox_bytes * 3 // 4 // (programs * sparse.MOST_IDS)


class Ticker:
    """Does something at a steady rate."""

    def __init__(self, tick: Callable[[], None]) -> None:
        self._tick = tick
        self._pause = 1.0
        self._task: asyncio.Task[None] | None = None

    def begin(self, rate: float) -> None:
        """So many times a second from now on."""
        self._pause = 1 / rate
        if self._task is None:
            self._task = asyncio.create_task(self._run())

    async def end(self) -> None:
        """No more."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _run(self) -> None:
        now = asyncio.get_running_loop().time
        due = now()
        while True:
            self._tick()
            due = max(due + self._pause, now() - LATE)
            await asyncio.sleep(max(0.0, due - now()))


class DenseStream(Ticker):
    """Messages of every kind to members and namespaces at random; queues are rarely empty."""

    def __init__(self, caller: Caller, seed: str) -> None:
        super().__init__(self._one)
        self._caller = caller
        self._random = random.Random(seed)
        self.targets: Sequence[tuple[str, str]] = ()

    def _one(self) -> None:
        namespace, id = self._random.choice(self.targets)
        kind = self._random.choice(MIX)
        self._caller.call_soon(kind, namespace, "" if kind == BROADCAST else id)


class SparseStream(Ticker):
    """A few calls at a time to one of many namespaces; queues are empty most of the time.

    Some ids are away and some are nowhere; some calls close connections, and some only read. What
    is asleep is left alone.
    """

    def __init__(self, caller: Caller, seed: str) -> None:
        super().__init__(self._one)
        self._caller = caller
        self._random = random.Random(seed)
        self.namespaces: Sequence[str] = ()
        self.large = 0
        """Bytes of a large message."""
        self._asleep: set[str] = set()
        self._looked = 0.0

    def _wake(self, now: float) -> None:
        """Say pairs to what was left alone until now: its counter may have begun anew."""
        if now < self._looked + LOOK:
            return
        self._looked = now
        before, self._asleep = (
            self._asleep,
            {name for name in self.namespaces if sparse.asleep(name, now)},
        )
        for name in before - self._asleep:
            self.wake(name)

    def wake(self, namespace: str) -> None:
        """Say pairs to each that may be a member."""
        for id in sparse.ids(namespace):
            self._pair_awaited(namespace, id, times=WAKINGS)

    def _one(self) -> None:
        now = time.monotonic()
        self._wake(now)
        few = self._random.random() < 0.5
        namespace = self._random.choice(
            sparse.focus(self.namespaces, now) if few else self.namespaces
        )
        if sparse.asleep(namespace, now):
            return
        (step,) = self._random.choices(list(STEPS), list(STEPS.values()))
        id = self._random.choice(sparse.ids(namespace))
        step(self, namespace, id)

    def _targeted(self, namespace: str, id: str) -> None:
        self._caller.call_soon(self._random.choice((SEND, SEND, CONFIRM)), namespace, id)

    def _broadcast(self, namespace: str, id: str) -> None:
        self._caller.call_soon(BROADCAST, namespace)

    def _pair(self, namespace: str, id: str) -> None:
        """A broadcast and a targeted message behind it, which must not overtake it."""
        self._caller.call_soon(BROADCAST, namespace)
        self._caller.call_soon(SEND, namespace, id)

    def _pair_awaited(self, namespace: str, id: str, times: int = 1) -> None:
        """The same, but the one is answered before the other is made.

        What is large is on its way for longer, and may be overtaken though it was answered.
        """

        async def pairs() -> None:
            for at in range(times):
                more = "x" * self.large if at == LARGE_ONE else ""
                await self._caller.call(BROADCAST, namespace, more=more)
                await self._caller.call(SEND, namespace, id)

        self._caller.keep(asyncio.create_task(pairs()))

    def _burst(self, namespace: str, id: str) -> None:
        """To each of its members, and to all, at once."""
        for one in (id, *sparse.ids(namespace)):
            self._caller.call_soon(self._random.choice((SEND, CONFIRM)), namespace, one)
        self._caller.call_soon(BROADCAST, namespace)
        self._caller.call_soon(SEND, namespace, id)

    def _nowhere(self, namespace: str, id: str) -> None:
        kind = self._random.choice((SEND, CONFIRM, CLOSE, THEN_CLOSE))
        self._caller.call_soon(kind, namespace, sparse.NOBODY)

    def _closing(self, namespace: str, id: str) -> None:
        self._caller.call_soon(self._random.choice((CLOSE, THEN_CLOSE)), namespace, id)

    def _read(self, namespace: str, id: str) -> None:
        kind = self._random.choice((COUNT, MEMBERS, LOCATE))
        self._caller.call_soon(kind, namespace, id if kind == LOCATE else "")


STEPS = {
    SparseStream._targeted: 45,
    SparseStream._broadcast: 12,
    SparseStream._pair: 12,
    SparseStream._pair_awaited: 5,
    SparseStream._burst: 4,
    SparseStream._nowhere: 6,
    SparseStream._closing: 3,
    SparseStream._read: 10,
}
"""The kinds of calls, and their frequencies; 1.3 calls on average."""
