"""Sentinels: the primary that a majority names, and the error when there is none."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from time import monotonic

import pytest
from redis.asyncio import Connection

from cluster_pool import BackplaneUnavailableError
from cluster_pool.backplane.endpoint import Endpoint
from cluster_pool.backplane.logins import Login
from cluster_pool.backplane.names import Names
from cluster_pool.backplane.sentinels import Sentinels
from cluster_pool.backplane.urls import Where
from tests.backplane.stub_sentinel import StubSentinel
from tests.support import async_test

OLD, NEW = ("10.0.0.1", 1), ("10.0.0.2", 2)


def _announced(where: Where) -> Endpoint:
    return Endpoint(Login(Connection, {"host": where[0], "port": where[1]}), Names(), 2.0)


def _sentinels(*stubs: StubSentinel, min_others: int = 0) -> Sentinels:
    endpoints = [stub.endpoint for stub in stubs]
    return Sentinels("redis+sentinel://…/main/0", endpoints, "main", min_others)


@contextlib.asynccontextmanager
async def _running(*stubs: StubSentinel) -> AsyncIterator[list[StubSentinel]]:
    async with contextlib.AsyncExitStack() as stack:
        yield [await stack.enter_async_context(stub) for stub in stubs]


@async_test
async def test_the_newest_answer_of_a_majority_counts() -> None:
    """A Sentinel that was cut off during a failover does not mislead, whichever it is."""
    for epochs in ((0, 3, 3), (3, 0, 3), (3, 3, 0)):
        stubs = [StubSentinel(NEW if epoch else OLD, epoch) for epoch in epochs]
        async with _running(*stubs):
            primary = await _sentinels(*stubs).primary(_announced)
            assert primary.shown == "redis://10.0.0.2:2/0"


@async_test
async def test_a_silent_sentinel_does_not_delay_the_answer() -> None:
    """A majority of answers suffices."""
    silent, *others = StubSentinel(OLD, 9), StubSentinel(NEW, 1), StubSentinel(NEW, 1)
    silent.silent = True
    async with _running(silent, *others):
        began = monotonic()
        primary = await _sentinels(silent, *others).primary(_announced)
        assert primary.shown == "redis://10.0.0.2:2/0"
        assert monotonic() - began < 0.5


@async_test
async def test_one_sentinel_that_answers_is_enough() -> None:
    """The others are dead, or are waited for no longer than a second."""
    gone, silent, one = StubSentinel(OLD), StubSentinel(OLD), StubSentinel(NEW)
    gone.port, silent.silent = 1, True
    async with _running(silent, one):
        primary = await _sentinels(gone, silent, one).primary(_announced)
        assert primary.shown == "redis://10.0.0.2:2/0"


@async_test
async def test_sentinels_that_name_no_primary_say_why() -> None:
    """The error has the reason of each of them."""
    gone, unknown, refusing, few, silent = (StubSentinel(OLD) for _ in range(5))
    gone.port, unknown.where, refusing.refusal, few.others = 1, None, "NOAUTH Who are you?", 0
    silent.silent = True
    async with _running(unknown, refusing, few, silent):
        sentinels = _sentinels(gone, unknown, refusing, few, silent, min_others=1)
        with pytest.raises(BackplaneUnavailableError) as caught:
            await sentinels.primary(_announced)
    said = str(caught.value)
    for why in (
        "cannot reach the Sentinel at redis://127.0.0.1:1/0",
        f"the Sentinel at 127.0.0.1:{unknown.port} does not know the service 'main', but 'other'",
        f"the Sentinel at 127.0.0.1:{refusing.port} cannot be asked: NOAUTH Who are you?",
        f"the Sentinel at 127.0.0.1:{few.port} sees 0 others, and 1 are asked for",
        f"the Sentinel at 127.0.0.1:{silent.port} said nothing for 1.5 s",
    ):
        assert why in said


@async_test
async def test_a_redis_in_place_of_a_sentinel_is_named_as_such() -> None:
    """The port of Redis is often mistaken for that of its Sentinel."""
    stub = StubSentinel(OLD)
    stub.refusal = "ERR unknown command 'SENTINEL', with args beginning with: 'main' "
    async with _running(stub):
        with pytest.raises(BackplaneUnavailableError, match="is no Sentinel: redis://"):
            await _sentinels(stub).primary(_announced)


@async_test
async def test_a_new_primary_is_noticed() -> None:
    """By the first look after a failover, over the existing sockets."""
    stubs = [StubSentinel(OLD, 1) for _ in range(3)]
    async with _running(*stubs):
        primary = await _sentinels(*stubs).primary(_announced)
        watch = asyncio.create_task(primary.watch(0.02))
        await asyncio.sleep(0.1)
        assert not watch.done()
        stubs[0].where, stubs[0].epoch = NEW, 0  # it knows less than the others
        await asyncio.sleep(0.1)
        assert not watch.done()
        for stub in stubs:
            stub.where, stub.epoch = NEW, 2
        with pytest.raises(
            BackplaneUnavailableError, match=r"'main' is now 10\.0\.0\.2:2, and was"
        ):
            async with asyncio.timeout(1):
                await watch
        connections = [len(stub._writers) for stub in stubs]
        assert connections == [2, 2, 2]  # of the first question, and of the watch


@async_test
async def test_sentinels_that_hide_their_epoch_are_believed() -> None:
    """Their users may have few rights."""
    stub = StubSentinel(OLD)
    stub.master_refused = True
    async with _running(stub):
        primary = await _sentinels(stub).primary(_announced)
        watch = asyncio.create_task(primary.watch(0.02))
        stub.where = NEW
        with pytest.raises(BackplaneUnavailableError, match="is now"):
            await watch


@async_test
async def test_a_primary_without_sentinels_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    """A log line says so once, and they are asked again when they are back."""
    caplog.set_level(logging.WARNING, "cluster_pool")
    stub = StubSentinel(OLD, 1)
    async with _running(stub):
        primary = await _sentinels(stub).primary(_announced)
    watch = asyncio.create_task(primary.watch(0.02))
    await asyncio.sleep(0.2)
    assert not watch.done()
    assert [record.message[:30] for record in caplog.records] == ["a failover would not be notice"]
    stub.where, stub.epoch = NEW, 2
    async with _running(stub):
        with pytest.raises(BackplaneUnavailableError, match="is now"):
            await watch


@async_test
async def test_a_primary_that_accepts_but_is_silent_is_left_for_the_next() -> None:
    """A frozen one does so: the wait for it is as long as for the Sentinels."""

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held.append(writer)

    held: list[asyncio.StreamWriter] = []
    async with await asyncio.start_server(accept, "127.0.0.1", 0) as server:
        frozen = ("127.0.0.1", server.sockets[0].getsockname()[1])
        stub = StubSentinel(frozen, 1)
        async with _running(stub):
            login = Login(Connection, {"host": "", "port": 0, "password": "s3cret"})
            primary = await _sentinels(stub).primary(
                lambda where: Endpoint(login.at(where), Names(), 30.0)
            )
            asyncio.get_running_loop().call_later(0.1, setattr, stub, "where", NEW)
            began = monotonic()
            with pytest.raises(BackplaneUnavailableError, match="is now"):
                await primary.open()
            assert monotonic() - began < 2
        for writer in held:
            writer.close()
