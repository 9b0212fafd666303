"""Taking over signal handlers, and restoring them; within this process."""

import asyncio
import contextlib
import os
import select
import signal
import threading
from collections.abc import Awaitable, Callable, Iterator

import pytest
import uvloop

from cluster_pool import Stopping
from cluster_pool.cluster.signals import LOOK, Signals
from cluster_pool.exceptions import ClusterPoolError
from tests.clusters import Backend
from tests.drains import join, times_of
from tests.support import async_test, eventually, run_alone

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}
BOTH = pytest.mark.parametrize("loop", LOOPS)
TERM, OTHER = signal.SIGTERM, signal.SIGUSR1
Test = Callable[[list[int]], Awaitable[None]]


@pytest.fixture(autouse=True)
def nothing_stays() -> Iterator[None]:
    """Every handler, and the wakeup descriptor, is what it was before."""
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
    before = [signal.getsignal(number) for number in numbers]
    yield
    assert [signal.getsignal(number) for number in numbers] == before
    assert signal.set_wakeup_fd(-1) == -1


def on_loop(loop: str, test: Test) -> None:
    """Run a test in which SIGTERM and SIGUSR1 have handlers of the loop that write them down."""

    async def run() -> None:
        told: list[int] = []
        running = asyncio.get_running_loop()
        for number in (TERM, OTHER):
            running.add_signal_handler(number, told.append, number)
        try:
            await test(told)
        finally:
            for number in (TERM, OTHER):
                running.remove_signal_handler(number)

    run_alone(run(), LOOPS[loop])


@BOTH
def test_handlers_of_the_loop_are_held_back(loop: str) -> None:
    """They run when the signal is handed on, other signals at once; afterwards all is restored."""

    async def test(told: list[int]) -> None:
        with Signals(3.0) as signals:
            os.kill(os.getpid(), TERM)
            assert await asyncio.wait_for(signals.next(), 10) == TERM
            os.kill(os.getpid(), OTHER)
            await eventually(lambda: told == [OTHER])
            await signals.hand_on(TERM)
            await eventually(lambda: told == [OTHER, TERM])
            os.kill(os.getpid(), TERM)  # of the same stop: for nobody
            await asyncio.sleep(0.1)
        os.kill(os.getpid(), TERM)
        await eventually(lambda: told == [OTHER, TERM, TERM])

    on_loop(loop, test)


@BOTH
def test_a_later_handler_for_another_signal_changes_nothing(loop: str) -> None:
    """asyncio sets the wakeup descriptor each time; it is taken again."""

    async def test(told: list[int]) -> None:
        running = asyncio.get_running_loop()
        with Signals(3.0) as signals:
            running.add_signal_handler(signal.SIGUSR2, told.append, signal.SIGUSR2)
            await asyncio.sleep(LOOK * 1.5)
            os.kill(os.getpid(), TERM)
            os.kill(os.getpid(), signal.SIGUSR2)
            assert await asyncio.wait_for(signals.next(), 10) == TERM
            await eventually(lambda: told)
            await asyncio.sleep(0.1)
            assert told == [signal.SIGUSR2]
            await signals.hand_on(TERM)
            await eventually(lambda: told == [signal.SIGUSR2, TERM])
        running.remove_signal_handler(signal.SIGUSR2)

    on_loop(loop, test)


@BOTH
def test_two_pools_may_take_signals(loop: str) -> None:
    """Both drain at a time; the server's handler runs when both are done."""

    async def test(told: list[int]) -> None:
        with Signals(3.0, hands_on=True) as outer, Signals(3.0, hands_on=True) as inner:
            os.kill(os.getpid(), TERM)
            os.kill(os.getpid(), OTHER)
            assert await asyncio.wait_for(inner.next(), 10) == TERM
            assert await asyncio.wait_for(outer.next(), 10) == TERM
            await eventually(lambda: told == [OTHER])
            handing_on = asyncio.create_task(outer.hand_on(TERM))
            await asyncio.sleep(0.1)
            assert told == [OTHER]
            await inner.hand_on(TERM)
            await handing_on
            await eventually(lambda: told == [OTHER, TERM])

    on_loop(loop, test)


def test_two_pools_drain_at_the_same_time() -> None:
    """Together they take as long as one; each keeps its own pace."""

    async def test(told: list[int]) -> None:
        stopping = Stopping(10.0, 20.0, announce=0.0)
        async with contextlib.AsyncExitStack() as stack:
            sockets = []
            for _ in range(2):
                pool, _ = await stack.enter_async_context(Backend(None).pools())
                await stack.enter_async_context(pool.drain_on_signal(stopping))
                sockets.append(await join(pool, 6))
            os.kill(os.getpid(), TERM)
            await eventually(lambda: told == [TERM], 30)
            (a, b) = map(times_of, sockets)
            assert len(a) == len(b) == 6
            assert max(a[0], b[0]) < min(a[-1], b[-1]), "one waited for the other"

    on_loop("asyncio", test)


@BOTH
def test_an_inner_context_that_ends_without_handing_on_holds_nothing_back(loop: str) -> None:
    """The outer one gets the signal all the same."""

    async def test(told: list[int]) -> None:
        with Signals(3.0, hands_on=True) as outer:
            with Signals(3.0, hands_on=True) as inner:
                os.kill(os.getpid(), TERM)
                assert await asyncio.wait_for(inner.next(), 10) == TERM
            assert await asyncio.wait_for(outer.next(), 10) == TERM
            await asyncio.wait_for(outer.hand_on(TERM), 10)
            await eventually(lambda: told == [TERM])

    on_loop(loop, test)


@BOTH
def test_an_inner_context_that_does_not_hand_on_keeps_the_signal(loop: str) -> None:
    """A program whose last steps are inside is not disturbed by outer handlers."""

    async def test(told: list[int]) -> None:
        with Signals(3.0, hands_on=True) as outer, Signals(3.0) as inner:
            os.kill(os.getpid(), TERM)
            assert await asyncio.wait_for(inner.next(), 10) == TERM
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(outer.next(), 0.1)
            assert told == []

    on_loop(loop, test)


@BOTH
def test_signal_contexts_may_end_in_any_order(loop: str) -> None:
    """The outer one may end first; the inner one then does not restore it."""

    async def test(told: list[int]) -> None:
        outer, inner = Signals(3.0), Signals(3.0)
        with contextlib.ExitStack() as last:
            with outer:
                last.enter_context(inner)
            os.kill(os.getpid(), TERM)
            assert await asyncio.wait_for(inner.next(), 10) == TERM
        os.kill(os.getpid(), TERM)
        await eventually(lambda: told == [TERM])

    on_loop(loop, test)


@BOTH
def test_a_loop_that_is_stopped_and_resumed_still_gets_signals(loop: str) -> None:
    """uvloop lets go of its descriptor whenever it stops, and sets a new one when it goes on."""
    running = LOOPS[loop]()
    told: list[int] = []
    try:
        running.run_until_complete(asyncio.sleep(0))
        running.add_signal_handler(TERM, told.append, TERM)
        signals = Signals(3.0)

        async def enter() -> None:
            signals.__enter__()

        async def hear() -> None:
            await asyncio.sleep(LOOK * 1.5)
            os.kill(os.getpid(), TERM)
            assert await asyncio.wait_for(signals.next(), 10) == TERM
            assert not told
            await signals.hand_on(TERM)
            await eventually(lambda: told == [TERM])
            signals.__exit__()
            running.remove_signal_handler(TERM)

        running.run_until_complete(enter())
        running.run_until_complete(hear())
    finally:
        running.close()


@async_test
async def test_a_signal_repeated_within_the_time_is_dropped() -> None:
    """Another signal is not dropped, nor the same one later."""
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with Signals(1.0) as signals:
            for number in (TERM, TERM, signal.SIGINT, TERM):
                os.kill(os.getpid(), number)
                await asyncio.sleep(0.05)
            await asyncio.sleep(1.2)
            os.kill(os.getpid(), TERM)
            heard = [await asyncio.wait_for(signals.next(), 10) for _ in range(3)]
            assert heard == [TERM, signal.SIGINT, TERM]
    finally:
        signal.signal(signal.SIGTERM, before)


@async_test
async def test_a_storm_of_signals_loses_none_that_counts() -> None:
    """Thousands come from a thread: each different one is seen, and nothing blocks."""
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with Signals(60.0) as signals:

            def storm() -> None:
                for at in range(20_000):
                    os.kill(os.getpid(), signal.SIGINT if at == 10_000 else TERM)

            await asyncio.to_thread(storm)
            # The kernel delivers waiting signals in the order of their numbers.
            heard = {await asyncio.wait_for(signals.next(), 10) for _ in range(2)}
            assert heard == {TERM, signal.SIGINT}
    finally:
        signal.signal(signal.SIGTERM, before)


@async_test
async def test_a_forked_child_dies_of_the_signal() -> None:
    """Its parent, whose sockets it shares, does not receive it."""
    with Signals(3.0) as signals:
        ready, begun = os.pipe()
        child = os.fork()
        if child == 0:
            with contextlib.suppress(BaseException):
                os.write(begun, b"x")
                select.select([], [], [], 30)
            os._exit(0)
        await asyncio.to_thread(os.read, ready, 1)
        os.kill(child, TERM)
        _, status = await asyncio.to_thread(os.waitpid, child, 0)
        os.close(ready)
        os.close(begun)
        assert os.WTERMSIG(status) == TERM
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(signals.next(), 0.3)


def test_only_the_main_thread_may_take_signals() -> None:
    """An error says so, and nothing stays half-installed."""
    raised: list[ClusterPoolError] = []

    async def enter() -> None:
        with pytest.raises(ClusterPoolError, match="main thread") as caught, Signals(3.0):
            pass
        raised.append(caught.value)

    thread = threading.Thread(target=lambda: asyncio.run(enter()))
    thread.start()
    thread.join()
    assert raised


@BOTH
def test_a_full_wakeup_descriptor_does_not_block(loop: str) -> None:
    """Other signals fill it while the loop stands still; the loop goes on, and handlers run."""

    async def test(told: list[int]) -> None:
        with Signals(3.0) as signals:
            for _ in range(5_000):
                os.kill(os.getpid(), OTHER)
            assert not select.select([], [], [], 0)[0]
            await eventually(lambda: told)
            os.kill(os.getpid(), TERM)
            assert await asyncio.wait_for(signals.next(), 10) == TERM
            assert TERM not in told

    on_loop(loop, test)
