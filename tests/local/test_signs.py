"""Signs of life: a client is asked once, however many callers wait."""

import asyncio

import pytest

from cluster_pool import Connection
from cluster_pool.local import signs
from cluster_pool.local.closing import cut, is_gone
from cluster_pool.local.signs import SignsOfLife, is_alive
from cluster_pool.local.state import ConnectionState
from cluster_pool.testing import FakeWebSocket
from tests.support import async_test


@pytest.mark.parametrize("answer", [True, False])
@async_test
async def test_a_client_is_asked_once_at_a_time(
    monkeypatch: pytest.MonkeyPatch, answer: bool
) -> None:
    """The answer is valid for as long as it took; without an answer the client is cut."""
    asked = 0

    async def ask(connection: ConnectionState, within: float) -> bool:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0.01)
        return answer

    monkeypatch.setattr(signs, "is_alive", ask)
    given, connection = SignsOfLife(10.0), Connection("1", "n", FakeWebSocket())
    assert await asyncio.gather(*(given.of(connection) for _ in range(5))) == [answer] * 5
    assert asked == 1
    assert await given.of(connection) is answer
    assert asked == (1 if answer else 2)
    assert is_gone(connection) is not answer


@async_test
async def test_a_question_that_waits_at_the_stop_counts_as_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An id is not given away because an answer is missing."""

    async def ask(connection: ConnectionState, within: float) -> bool:
        await asyncio.Event().wait()
        return False

    monkeypatch.setattr(signs, "is_alive", ask)
    given, connection = SignsOfLife(10.0), Connection("1", "n", FakeWebSocket())
    waiting = asyncio.create_task(given.of(connection))
    await asyncio.sleep(0)
    await given.stop()
    assert await waiting


@async_test
async def test_a_departed_connection_is_not_asked() -> None:
    """Its transport cannot tell."""
    connection = Connection("1", "n", FakeWebSocket())
    assert await is_alive(connection, 0.1)
    cut(connection)
    assert not await is_alive(connection, 0.1)
