"""Claims under ``"reject"`` of ids whose clients may be gone."""

import asyncio
from dataclasses import replace

import pytest

from cluster_pool import ClusterPoolError, Connection, IdTakenError
from cluster_pool.core import envelope
from cluster_pool.local import signs
from cluster_pool.local.closing import is_gone
from cluster_pool.testing import FAST, FakeWebSocket
from tests.clusters import Backend, Pool
from tests.support import async_test, eventually

TIMING = replace(FAST, sign_of_life=0.1)


class Clients:
    """Whether the clients of fake WebSockets answer; how often they were asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked = 0
        self.answer: bool | None = False
        """The clients' answer; None: none comes for a long time."""
        clients = self

        async def alive(connection: Connection, within: float) -> bool:
            clients.asked += 1
            await asyncio.sleep(within if clients.answer is not None else 60)
            return bool(clients.answer)

        monkeypatch.setattr(signs, "is_alive", alive)


async def claims(pools: list[Pool], count: int, **options: float) -> list[object]:
    """So many claims of one id under reject, at each of the pools, at the same time."""
    joins = [
        pool.host("n", "alice", on_conflict="reject", **options)
        for _ in range(count)
        for pool in pools
    ]
    return await asyncio.gather(*joins, return_exceptions=True)


@pytest.mark.parametrize("secret", [None, "not known to strangers"])
@async_test
async def test_a_dead_client_does_not_keep_its_id(
    backend: Backend, monkeypatch: pytest.MonkeyPatch, secret: str | None
) -> None:
    """It is asked once for any number of claims, here and elsewhere: one of them wins."""
    clients = Clients(monkeypatch)
    async with backend.pools(2, timing=TIMING, secret=secret) as pools:
        for owner, claimants in ((0, pools), (0, pools[:1]), (1, pools[:1])):
            stale = await pools[owner].host("n", "alice", on_conflict="takeover")
            clients.asked = 0
            outcomes = await claims(claimants, 5)
            won = [one for one in outcomes if isinstance(one, FakeWebSocket)]
            lost = [one for one in outcomes if isinstance(one, IdTakenError)]
            assert (len(won), len(lost)) == (1, len(outcomes) - 1)
            assert clients.asked == 1
            connection: Connection = stale.connection  # type: ignore[attr-defined]
            assert (is_gone(connection), connection.close_code) == (True, 1006)
            assert await pools[0].send("n", "alice", "x", confirm=True)
            assert await won[0].wait_sent() == ["x"]
            assert await pools[0].count("n") == 1


@async_test
async def test_a_client_that_answers_keeps_its_id(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is asked once in a while, and its id is taken for everybody else."""
    clients = Clients(monkeypatch)
    clients.answer = True
    async with backend.pools(2, timing=replace(FAST, sign_of_life=0.5)) as pools:
        alice = await pools[0].host("n", "alice")
        for _ in range(3):
            outcomes = await claims(pools, 3)
            assert all(isinstance(outcome, IdTakenError) for outcome in outcomes)
        assert clients.asked <= 3, "of eighteen claims, once in a while"
        assert alice.closed is None
        assert await pools[1].send("n", "alice", "x", confirm=True)


@async_test
async def test_an_owner_that_says_nothing_keeps_the_id(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The claim is told so in time; a stop, of the owner or of the claimant, does not wait."""
    clients = Clients(monkeypatch)
    clients.answer = None
    async with backend.pools(2, timing=TIMING) as pools:
        alice = await pools[0].host("n", "alice")
        outcomes = await claims(pools, 1, timeout=1.5)
        assert all(isinstance(outcome, IdTakenError) for outcome in outcomes)
        assert alice.closed is None
        waiting = asyncio.create_task(claims(pools, 1, timeout=30))
        await eventually(lambda: pools[1]._parts.ownership.coming())
        await asyncio.sleep(0.05)
    assert all(isinstance(outcome, ClusterPoolError) for outcome in await waiting)


@async_test
async def test_an_id_that_is_given_up_meanwhile_can_be_had(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The owner releases it while its client is asked: nobody is cut, and the claim wins."""
    clients = Clients(monkeypatch)
    async with backend.pools(2, timing=replace(FAST, sign_of_life=0.3)) as (one, two):
        alice = await one.host("n", "alice")
        joining = asyncio.create_task(two.host("n", "alice", on_conflict="reject"))
        await eventually(lambda: clients.asked)
        await one.remove_connection(alice.connection)  # type: ignore[attr-defined]
        assert (await joining).closed is None
        assert await one.count("n") == 1


@async_test
async def test_a_question_is_answered_by_the_node_it_was_routed_to(backend: Backend) -> None:
    """A question about a departed connection, or a garbled one, does no harm."""
    async with backend.pools(2, timing=TIMING) as (one, two):
        alice = await one.host("n", "alice")
        told: list[object] = []
        two._parts.ownership.standing.asked(None, told.append)
        assert [str(result) for result in told] == ["SendResult.ABSENT"]
        start = one._parts.backplane.shard.start_name
        channel = backend.routed_channel("n", one)
        for fields in ([], ["x"], ["node-2", 1, "x"]):
            item = envelope.pack((f"{start}.0:1:1", (envelope.QUESTION, "n", "nobody", fields)))
            await backend.publish(channel, b"\xc1\x011 1 0 x 1\n" + item)
        assert await two.send("n", "alice", "x", confirm=True)
        assert await alice.wait_sent() == ["x"]
        assert one.statistics()["dropped_garbage"] == 2
