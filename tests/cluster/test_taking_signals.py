"""Taking signals from whoever has them, and giving them back; in this process."""

import asyncio
import contextlib
import os
import select
import signal
import threading
import warnings
from collections.abc import Awaitable, Callable, Iterator

import pytest
import uvloop

from cluster_pool import ClusterPool, Stopping
from cluster_pool.cluster.signals import LOOK, Signals
from cluster_pool.exceptions import ClusterPoolError
from cluster_pool.testing import FAST
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
    """They are told when it is handed on, and others at once; afterwards all is as before."""

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
def test_whoever_asks_for_another_signal_later_changes_nothing(loop: str) -> None:
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
def test_two_may_take_them(loop: str) -> None:
    """Two pools of one program drain at a time; the server is told when both are done."""

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
def test_who_leaves_without_a_word_holds_nothing_back(loop: str) -> None:
    """The inner one of two is left before it has handed on."""

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
def test_who_does_not_hand_on_keeps_it(loop: str) -> None:
    """A program's last words inside: whoever is outside is not told."""

    async def test(told: list[int]) -> None:
        with Signals(3.0, hands_on=True) as outer, Signals(3.0) as inner:
            os.kill(os.getpid(), TERM)
            assert await asyncio.wait_for(inner.next(), 10) == TERM
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(outer.next(), 0.1)
            assert told == []

    on_loop(loop, test)


@BOTH
def test_they_may_be_left_in_any_order(loop: str) -> None:
    """The outer one first: nothing is given back to it any more."""

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
def test_a_loop_that_stood_still_in_between(loop: str) -> None:
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
async def test_what_is_told_twice() -> None:
    """The same one within the time is dropped; a different one is not, and the same one later."""
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
async def test_a_storm_of_signals() -> None:
    """Thousands, from a thread: nothing is lost that counts, and nothing blocks."""
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with Signals(60.0) as signals:

            def storm() -> None:
                for at in range(20_000):
                    os.kill(os.getpid(), signal.SIGINT if at == 10_000 else TERM)

            await asyncio.to_thread(storm)
            # Of those that wait for a turn of this process the kernel hands the lower number first.
            heard = {await asyncio.wait_for(signals.next(), 10) for _ in range(2)}
            assert heard == {TERM, signal.SIGINT}
    finally:
        signal.signal(signal.SIGTERM, before)


@async_test
async def test_a_child_that_was_forked_dies_of_it() -> None:
    """And its parent, whose sockets it shares, hears nothing."""
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


def test_only_the_main_thread_may_take_them() -> None:
    """An error says so, and nothing is left half-taken."""
    raised: list[ClusterPoolError] = []

    async def enter() -> None:
        with pytest.raises(ClusterPoolError, match="main thread") as caught, Signals(3.0):
            pass
        raised.append(caught.value)

    thread = threading.Thread(target=lambda: asyncio.run(enter()))
    thread.start()
    thread.join()
    assert raised


def test_the_readme_app_under_a_test_client() -> None:
    """It starts, talks, and stops."""
    pytest.importorskip("httpx")
    from fastapi import FastAPI, WebSocket

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the next HTTP client that it will use
        from fastapi.testclient import TestClient

    backend = Backend(None)
    pool = ClusterPool(backend.redis(), timing=FAST)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI):  # type: ignore[no-untyped-def]
        async with pool, pool.drain_on_signal():
            yield

    app = FastAPI(lifespan=lifespan)

    @app.websocket("/ws/{room}/{user}")
    async def endpoint(websocket: WebSocket, room: str, user: str) -> None:
        async with pool.accept(websocket, namespace=room, id=user) as connection:
            async for message in connection:
                await pool.broadcast_message(room, f"{user}: {message}")

    with TestClient(app) as client, client.websocket_connect("/ws/room/alice") as websocket:
        websocket.send_text("hello")
        assert websocket.receive_text() == "alice: hello"


@BOTH
def test_a_full_descriptor_holds_nobody_up(loop: str) -> None:
    """Bytes for others come while the loop stands still: it goes on, and so do they."""

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
