"""A link that carries nothing, in both directions or in one, and a Redis that is frozen."""

import asyncio
import contextlib
import random
import time
from collections.abc import Awaitable, Callable

from cluster_pool import BackplaneUnavailableError, ClusterPool, SendResult
from tools.chaos.targets.members import NAMESPACE, Member, until
from tools.chaos.targets.rows import Row
from tools.harness.proxy import Proxy
from tools.harness.servers import RedisServer

NOTICED, FAILED = 3.5, 2.0
SILENCE = 5.0
EVERY = 0.05
"""Seconds between two sends."""
SLACK = 0.25
"""Seconds by which a time-out of 2 s may be late on a busy loop."""


async def measure(*, times: int, tell: Callable[[str], None]) -> list[Row]:
    """Each kind of silence, several times: until it is noticed, and how long a send takes."""
    rows = []
    for what in ("a black hole", "a node hears nothing", "a node is not heard", "Redis frozen"):
        noticed, longest, wrong = [], [], []
        for _ in range(times):
            tell(f"{what}, for {SILENCE:g} s")
            one = await _silence(what)
            noticed.append(one[0])
            longest.append(one[1])
            wrong += one[2]
        rows += [
            Row(what, "until the node is not ready", noticed, NOTICED),
            Row(what, "longest send, confirmed", longest, FAILED + SLACK, wrong=wrong),
        ]
    return rows


async def _silence(what: str) -> tuple[float, float, list[str]]:
    async with contextlib.AsyncExitStack() as stack:
        redis = stack.enter_context(RedisServer())
        proxy = await stack.enter_async_context(Proxy(redis.path))
        one = await stack.enter_async_context(
            ClusterPool(f"redis://127.0.0.1:{proxy.port}", node_id="one")
        )
        two = await stack.enter_async_context(ClusterPool(f"unix://{redis.path}", node_id="two"))
        bob = Member("bob")
        await two.new_connection(bob.connection)
        sends = Sends(one)
        sending = asyncio.create_task(sends.run())
        await asyncio.sleep(random.uniform(1, 2))
        begun = time.monotonic()
        _begin(what, proxy, redis)
        noticed = await until(lambda: not one.ready)
        await asyncio.sleep(max(0.0, SILENCE - (noticed - begun)))
        ready_meanwhile = one.ready
        proxy.heal()
        redis.thaw()
        await until(lambda: one.ready and two.ready)
        sends.ended = True
        await sending
        wrong = sends.faults(bob)
        if ready_meanwhile:
            wrong.append("the node called itself ready")
        return noticed - begun, sends.longest, wrong


def _begin(what: str, proxy: Proxy, redis: RedisServer) -> None:
    if what == "Redis frozen":
        redis.freeze()
    else:
        proxy.hold(upwards="hears" not in what, downwards="not heard" not in what)


class Sends:
    """Numbered sends from one node to a member of the other, all the time."""

    def __init__(self, pool: ClusterPool) -> None:
        self._pool = pool
        self.ended = False
        self.longest = 0.0
        self._answers: dict[str, object] = {}

    async def run(self) -> None:
        """Send until told to end."""
        running: list[Awaitable[None]] = []
        while not self.ended:
            running.append(asyncio.create_task(self._send(str(len(running)))))
            await asyncio.sleep(EVERY)
        await asyncio.gather(*running)

    async def _send(self, number: str) -> None:
        begun = time.monotonic()
        try:
            self._answers[number] = await self._pool.send(NAMESPACE, "bob", number, confirm=True)
        except BackplaneUnavailableError as error:
            self._answers[number] = error
        self.longest = max(self.longest, time.monotonic() - begun)

    def faults(self, bob: Member) -> list[str]:
        """Every answer that was not true, every message that came twice or out of order."""
        heard = [str(text) for text in bob.heard]
        wrong = []
        if heard != sorted(set(heard), key=int):
            wrong.append("a message came twice, or out of order")
        for number, answer in self._answers.items():
            arrived = number in heard
            if answer is SendResult.DELIVERED and not arrived:
                wrong.append(f"{number} was answered delivered and did not arrive")
            refused = isinstance(answer, BackplaneUnavailableError) and not answer.maybe_executed
            if (refused or answer in (SendResult.ABSENT, SendResult.UNREACHABLE)) and arrived:
                wrong.append(f"{number} was answered {answer} and arrived")
        return wrong
