"""Publishers without an event loop: bounded, stopped from any thread, and used across a fork."""

import asyncio
import contextlib
import inspect
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator

import pytest

from cluster_pool import BackplaneUnavailableError, PoolClosedError, Publisher, SyncPublisher
from tests.clusters import Pool
from tests.servers import RedisServer

Outcomes = list[object]


class Elsewhere:
    """An event loop in a thread, with a node and a network between it and Redis."""

    def __init__(self, server: RedisServer) -> None:
        self._server = server
        self._stack = contextlib.AsyncExitStack()
        self.proxy = server.network()
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever)

    def __enter__(self) -> "Elsewhere":
        self._thread.start()
        self.run(self._stack.enter_async_context(self.proxy))
        return self

    def __exit__(self, *error: object) -> None:
        self.loop.call_soon_threadsafe(self.proxy.heal)
        self.run(self._stack.aclose())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()

    def run(self, work):  # type: ignore[no-untyped-def]
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(20)

    async def _join(self, id: str) -> None:
        node = Pool(self.proxy.url, node_id=f"node-of-{id}")
        await self._stack.enter_async_context(node)
        await node.host("n", id)

    def mute_owner_of(self, id: str) -> None:
        """Let the owner receive messages, but answer none."""
        self.run(self._join(id))
        self.loop.call_soon_threadsafe(lambda: self.proxy.hold(upwards=True, downwards=False))


@pytest.fixture
def elsewhere(own_server: RedisServer) -> Iterator[Elsewhere]:
    with Elsewhere(own_server) as one:
        yield one


def in_threads(count: int, call, outcomes: Outcomes) -> list[threading.Thread]:  # type: ignore[no-untyped-def]
    """Threads that note the result or the error of their call."""

    def run() -> None:
        try:
            outcomes.append(call())
        except Exception as error:
            outcomes.append(type(error))

    threads = [threading.Thread(target=run, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    return threads


def ended(threads: list[threading.Thread], seconds: float) -> bool:
    """Whether all of them have ended, within so many seconds each."""
    for thread in threads:
        thread.join(seconds)
    return not any(thread.is_alive() for thread in threads)


def ours() -> list[threading.Thread]:
    return [one for one in threading.enumerate() if one.name.startswith("cluster_pool")]


def test_a_stop_ends_the_calls_of_other_threads(
    own_server: RedisServer, elsewhere: Elsewhere
) -> None:
    """One waits for an owner's answer, another iterates over members."""
    elsewhere.mute_owner_of("alice")
    publisher = SyncPublisher(own_server.url)
    members = publisher.members("n")
    assert next(members).id == "alice"
    outcomes: Outcomes = []
    threads = in_threads(
        3, lambda: publisher.send("n", "alice", "x", confirm=True, timeout=60), outcomes
    )
    while not (publisher._background and len(publisher._background._calls) == 3):
        threads[0].join(0.01)
    publisher.stop()
    assert ended(threads, 5)
    assert outcomes == [PoolClosedError] * 3
    with pytest.raises(PoolClosedError):
        next(members)
    with pytest.raises(PoolClosedError):
        publisher.count("n")
    publisher.stop()
    assert ours() == []


def test_threads_that_call_during_a_stop_get_an_answer_or_pool_closed(
    own_server: RedisServer,
) -> None:
    """Eight threads, in twenty stops."""
    for _ in range(20):
        publisher = SyncPublisher(own_server.url)
        publisher.count("n")
        outcomes: Outcomes = []

        def call(publisher: SyncPublisher = publisher) -> None:
            while True:
                publisher.count("n", timeout=20)

        threads = in_threads(8, call, outcomes)
        threads[0].join(0.01)
        publisher.stop()
        assert ended(threads, 5)
        assert outcomes == [PoolClosedError] * 8
    assert ours() == []


def test_a_timeout_holds_also_for_the_start(own_server: RedisServer, elsewhere: Elsewhere) -> None:
    """Eight threads while Redis is silent; the start goes on, and serves the next call."""
    elsewhere.loop.call_soon_threadsafe(elsewhere.proxy.hold)
    publisher = SyncPublisher(elsewhere.proxy.url, timeout=0.5)
    outcomes: Outcomes = []
    threads = in_threads(8, lambda: publisher.count("n"), outcomes)
    assert ended(threads, 1.5)
    assert outcomes == [BackplaneUnavailableError] * 8
    with pytest.raises(BackplaneUnavailableError, match=r"127\.0\.0\.1"):
        list(publisher.members("n"))
    with pytest.raises(BackplaneUnavailableError), publisher:
        pass
    elsewhere.loop.call_soon_threadsafe(elsewhere.proxy.heal)
    assert publisher.count("n", timeout=20) == 0
    publisher.stop()
    assert ours() == []


def test_a_start_that_takes_longer_than_a_call_serves_a_later_one(
    own_server: RedisServer, elsewhere: Elsewhere
) -> None:
    """Redis is slow: no call has the time for a whole start."""
    elsewhere.proxy.delay = 0.1
    publisher = SyncPublisher(elsewhere.proxy.url)
    failures = 0
    while True:
        try:
            assert publisher.count("n", timeout=0.4) == 0
            break
        except BackplaneUnavailableError:
            failures += 1
            assert failures < 50
    assert failures
    publisher.stop()


PROGRAM = '''
import asyncio, multiprocessing, os, signal, sys, time
from cluster_pool import ClusterPool, Connection, Publisher, SendResult, SyncPublisher
from cluster_pool.testing import FakeWebSocket

URL = sys.argv[1]
signal.alarm(50)  # whatever hangs ends, and its children say so


def child(work, end=os._exit):
    """Run ``work`` in a forked process."""
    pid = os.fork()
    if pid:
        return pid
    signal.alarm(40)
    try:
        work()
    except BaseException as error:
        told(repr(error))
    end(0)


def node(name, id):
    """A process that holds one member."""
    async def run():
        async with ClusterPool(URL, node_id=name) as pool:
            await pool.new_connection(Connection(id, "n", FakeWebSocket()))
            told("up")
            await asyncio.sleep(60)
    return child(lambda: asyncio.run(run()))


def told(*words):
    """A whole line at once: others write to the same pipe."""
    sys.stdout.write(" ".join(map(str, words)) + "\\n")
    sys.stdout.flush()

'''


def program(server: RedisServer, body: str) -> list[str]:
    """The sorted output lines of a program; it and its children end in time, with status 0."""
    done = subprocess.run(
        [sys.executable, "-P", "-W", "error", "-c", PROGRAM + textwrap.dedent(body), server.url],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return sorted(done.stdout.splitlines())


@pytest.mark.parametrize("end", ["os._exit", "sys.exit"])
def test_a_publisher_that_was_used_before_a_fork_works_on_both_sides(
    own_server: RedisServer, end: str
) -> None:
    """The child has its own thread, sockets and node id, and does not affect the parent."""
    lines = program(
        own_server,
        f"""
        owner = node("node-1", "alice")
        publisher = SyncPublisher(URL)
        while not publisher.count("n"):
            time.sleep(0.05)
        members = publisher.members("n")
        next(members)

        def work():
            try:
                next(members)
            except Exception as error:
                told("iteration", type(error).__name__)
            for _ in range(5):
                told(publisher.send("n", "alice", "x", confirm=True, timeout=20).name)
            told("publisher", publisher._background.publisher._parts.backplane.identity.node_id)
            publisher.stop()

        for _ in range(2):
            os.waitpid(child(work, {end}), 0)
        told("parent", publisher.send("n", "alice", "x", confirm=True, timeout=20).name)
        assert list(members) == []
        told("publisher", publisher._background.publisher._parts.backplane.identity.node_id)
        publisher.stop()
        os.kill(owner, signal.SIGKILL)
        os.waitpid(owner, 0)
        """,
    )
    assert lines.count("DELIVERED") == 10
    assert lines.count("parent DELIVERED") == 1
    assert lines.count("iteration PoolClosedError") == 2
    assert len({line for line in lines if line.startswith("publisher ")}) == 3


def test_processes_forked_from_one_publisher_get_their_own_answers(own_server: RedisServer) -> None:
    """One asks an owner that is frozen, another one that answers: TIMED_OUT and DELIVERED."""
    lines = program(
        own_server,
        """
        owners = [node("node-1", "alice"), node("node-2", "bob")]
        publisher = SyncPublisher(URL)
        while publisher.count("n") < 2:
            time.sleep(0.05)
        os.kill(owners[1], signal.SIGSTOP)

        def ask(id):
            told(id, publisher.send("n", id, "x", confirm=True, timeout=1.5).name)

        context = multiprocessing.get_context("fork")
        asked = [context.Process(target=ask, args=(id,)) for id in ("bob", *["alice"] * 8)]
        for one in asked:
            one.start()
        for one in asked:
            one.join()
        publisher.stop()
        for owner in owners:
            os.kill(owner, signal.SIGKILL)
            os.waitpid(owner, 0)
        """,
    )
    assert [line for line in lines if line != "up"] == ["alice DELIVERED"] * 8 + ["bob TIMED_OUT"]


def test_a_modules_pool_is_another_node_in_each_process(
    own_server: RedisServer,
) -> None:
    """As under ``gunicorn --preload -w 3``; even if the parent has started it before."""
    lines = program(
        own_server,
        """
        pool = ClusterPool(URL)

        async def serve():
            async with pool:
                await pool.new_connection(Connection(pool.node_id, "n", FakeWebSocket()))
                while await pool.count("n") < 3:
                    await asyncio.sleep(0.05)
                member = await pool.locate("n", pool.node_id)
                told(len(await pool.nodes()), member.node == pool.node_id)
                await asyncio.sleep(1)

        async def briefly():
            async with pool:
                told("parent", len(await pool.nodes()))

        asyncio.run(briefly())
        for worker in [child(lambda: asyncio.run(serve())) for _ in range(3)]:
            os.waitpid(worker, 0)
        """,
    )
    assert lines == ["3 True"] * 3 + ["parent 1"]


def test_an_asynchronous_publisher_starts_anew_in_a_child(own_server: RedisServer) -> None:
    """It was never stopped before the fork: the parent's goes on."""
    lines = program(
        own_server,
        """
        publisher = Publisher(URL)
        loop = asyncio.new_event_loop()
        loop.run_until_complete(publisher.start())
        told(loop.run_until_complete(publisher.count("n")))

        async def again():
            async with publisher:
                told("child", await publisher.count("n"))

        async def wait_for(pid):
            while os.waitpid(pid, os.WNOHANG) == (0, 0):
                await asyncio.sleep(0.05)
            await asyncio.sleep(3)
            told(await publisher.count("n"), publisher._parts.backplane.shard.generation)
            await publisher.stop()

        loop.run_until_complete(wait_for(child(lambda: asyncio.run(again()), sys.exit)))
        loop.close()
        """,
    )
    assert lines == ["0", "0 1", "child 0"]


FOR_A_LOOP = {"presence", "send_nowait", "start", "watch", "watch_users", "watching"}
"""Calls that need an event loop."""


def test_its_signatures_are_those_of_a_publisher() -> None:
    """The same names, parameters, defaults and types; awaited and iterated calls block."""

    def methods(kind: type) -> dict[str, inspect.Signature]:
        found = inspect.getmembers(kind, callable)
        return {name: inspect.signature(one) for name, one in found if not name.startswith("_")}

    waiting, blocking = methods(Publisher), methods(SyncPublisher)
    assert set(waiting) - FOR_A_LOOP == set(blocking)
    for name, signature in blocking.items():
        other = waiting[name]
        assert signature.parameters == other.parameters, name
        gives = str(other.return_annotation).replace("AsyncIterator", "Iterator")
        assert str(signature.return_annotation) == gives, name
    made, other = inspect.signature(SyncPublisher), inspect.signature(Publisher)
    assert list(made.parameters) == list(other.parameters)
    assert SyncPublisher("redis://h:1").address == Publisher("redis://h:1").address
