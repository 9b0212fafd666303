"""The way of inbound messages, on a pool that fails when told to."""

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from cluster_pool.core.statistics import Counters
from cluster_pool.exceptions import BackplaneUnavailableError, PendingLimitError
from cluster_pool.server import attempts
from cluster_pool.server.inbound import Inbound
from cluster_pool.testing import fake_cluster
from tests.support import async_test, eventually


class FakePool:
    """Publishes into a list, fails, or blocks until it is released."""

    def __init__(self) -> None:
        self.counters = Counters()
        self.published: list[str] = []
        self.inbound = self
        self.attempts = 0
        self.error: Exception | None = None
        self.gate: asyncio.Event | None = None

    async def room(self, message: str) -> None:
        """There is always room."""

    async def publish_inbound(self, connection: object, message: str) -> int:
        self.attempts += 1
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error
        self.published.append(message)
        return 1


class Saying:
    """A connection whose client sends these messages, as fast as they are read."""

    _silenced = False

    def __init__(self, *messages: str) -> None:
        self.messages = messages

    async def __aiter__(self) -> AsyncIterator[str]:
        for message in self.messages:
            yield message


async def publish(made: Inbound, *messages: str) -> None:
    await made.publish_all(cast(Any, Saying(*messages)))


@async_test
async def test_inbound_messages_of_a_client_keep_their_order() -> None:
    """One after the other, none lost."""
    pool = FakePool()
    await publish(Inbound(cast(Any, pool)), "a", "b", "c")
    assert pool.published == ["a", "b", "c"]
    assert pool.counters.inbound_lost == 0


@async_test
async def test_outage_of_redis_delays_one_inbound_message_and_drops_the_rest(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The first failure is waited for; later messages are dropped at once, counted, logged once."""
    pool = FakePool()
    pool.error = BackplaneUnavailableError("gone")
    made = Inbound(cast(Any, pool))
    with caplog.at_level(logging.WARNING):
        await publish(made, *"abcdefgh")
    assert pool.attempts == 1
    assert pool.counters.inbound_lost == 8
    assert len(caplog.records) == 1


@async_test
async def test_one_inbound_message_at_a_time_is_tried_during_an_outage(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """While it waits others are dropped; when it succeeds all go on."""
    monkeypatch.setattr(attempts, "PAUSE", 0.0)
    pool = FakePool()
    pool.error = BackplaneUnavailableError("gone")
    made = Inbound(cast(Any, pool))
    await publish(made, "lost")
    pool.error, pool.gate = None, asyncio.Event()
    first = asyncio.create_task(publish(made, "tries"))
    await eventually(lambda: pool.attempts == 2)
    await publish(made, "dropped")
    assert pool.attempts == 2
    pool.gate.set()
    await first
    await publish(made, "a", "b")
    assert pool.published == ["tries", "a", "b"]
    assert pool.counters.inbound_lost == 2


@async_test
async def test_refused_inbound_message_is_counted_and_starts_no_outage() -> None:
    """Too much waits already: this one is lost, the next one may not be."""
    pool = FakePool()
    pool.error = PendingLimitError("full")
    made = Inbound(cast(Any, pool))
    await publish(made, "a", "b")
    assert pool.attempts == 2
    assert pool.counters.inbound_lost == 2


@async_test
async def test_a_message_that_is_handled_after_the_stop_is_counted_as_lost() -> None:
    """No handler fails because of it."""
    async with fake_cluster(1) as (pool,):
        made = Inbound(pool)
    await publish(made, "late")
    assert pool.counters.inbound_lost == 1
