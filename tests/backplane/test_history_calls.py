"""How far ids have received a history: what scripts store of it, for whom, and for how long."""

import contextlib
from collections.abc import AsyncIterator

import pytest

from cluster_pool import History
from cluster_pool.backplane.calls import deadline_in
from cluster_pool.backplane.claims import Claims
from cluster_pool.core.claims import Claim
from cluster_pool.core.history import HistoryRules, Position, Resumption
from tests.clusters import Backend
from tests.support import async_test

ROOM = "room"
SECONDS = 100


class Registry:
    """Claims and positions in one namespace, without a node."""

    def __init__(self, backend: Backend, backplane: object, history: History | None) -> None:
        self.backend, self.parts = backend, backplane
        setup = backplane.setup  # type: ignore[attr-defined]
        self.topology = backplane.topology  # type: ignore[attr-defined]
        rules = HistoryRules({ROOM: history} if history else None, 1.0)
        self.claims = Claims(self.topology, setup.keys, backplane.identity, rules)  # type: ignore[attr-defined]
        self.positions = setup.keys.positions(ROOM)
        self.former = self.positions.replace("positions", "former_positions")
        self.held: dict[str, Claim] = {}
        self._nonces = 0

    async def claim(self, id: str, user: str | None = None) -> Resumption | None:
        """Claim an id; gives the findings."""
        self._nonces += 1
        until = self.topology.of(ROOM).clock.at(deadline_in(20))
        one = (id, f"t{self._nonces}", 0, until, user)
        reply = self.claims.claim(
            self.topology.current, ROOM, "start.0", [one], takeover=True, room=9
        )
        ((_, claim, found),) = await reply
        assert claim is not None
        self.held[id] = claim
        return found

    async def release(self, id: str, number: int | None = None) -> None:
        entry = "" if number is None else f"{await self.place(number)} -"
        one = (id, self.held.pop(id), entry)
        await self.claims.release(self.topology.current, ROOM, [one], deadline_in(20))

    async def store(self, id: str, claim: Claim, number: int) -> None:
        place = Position.parse(await self.place(number))
        assert place is not None
        entry = self.claims.entry(ROOM, place, None)
        await self.claims.store_positions(ROOM, [(id, claim, entry)], deadline_in(20))

    async def place(self, number: int) -> str:
        return f"{await self.epoch()} {number}"

    async def epoch(self) -> str:
        async with self.backend.client() as client:
            found = await client.hget(f"{self.backend.prefix}:{{{ROOM}}}:numbers", "epoch")
        return str(found.split()[0].decode())

    def stored(self, key: str = "") -> dict[str, str]:
        """The numbers and readers by id."""
        with self.backend.sync_client() as client:
            found = client.hgetall(key or self.positions)
        return {id.decode(): entry.decode().partition(" ")[2] for id, entry in found.items() if id}


@contextlib.asynccontextmanager
async def registry(backend: Backend, *, recorded: bool = True) -> AsyncIterator[Registry]:
    async with backend.publisher() as publisher:
        history = History(seconds=SECONDS) if recorded else None
        one = Registry(backend, publisher._parts.backplane, history)
        yield one
        for id in list(one.held):
            await one.release(id)


async def broadcast(one: Registry, times: int) -> None:
    async with one.backend.publisher() as publisher:
        for number in range(times):
            await publisher.broadcast_message(ROOM, str(number))


@async_test
async def test_an_id_that_comes_back_finds_its_position(backend: Backend) -> None:
    """The first claim begins at the last message; a release may say more than was stored."""
    async with registry(backend) as one:
        found = await one.claim("alice")
        assert found is not None
        assert (found.last.number, found.since, found.replaced) == (0, None, "")
        await broadcast(one, 5)
        await one.store("alice", one.held["alice"], 2)
        assert one.stored() == {"alice": "2 -"}
        await one.release("alice", 4)
        found = await one.claim("alice")
        epoch = await one.epoch()
        assert found == Resumption(Position(epoch, 5), Position(epoch, 4))
        with backend.sync_client() as client:
            assert SECONDS * 1000 < client.pttl(one.positions) <= 2 * SECONDS * 1000


@async_test
async def test_the_claim_that_was_replaced_is_named(backend: Backend) -> None:
    """If its owner is heard, which may know more than what is stored; it stores nothing more."""
    async with registry(backend) as one:
        await one.claim("alice")
        former = one.held["alice"]
        await broadcast(one, 3)
        async with backend.listening(one.topology.routed_prefix(ROOM) + "start"):
            found = await one.claim("alice")
            assert found is not None
            assert found.replaced == str(former)
        await one.store("alice", former, 3)
        await one.store("nobody", former, 3)
        assert one.stored() == {"alice": "0 -"}
        await one.store("alice", one.held["alice"], 1)
        assert one.stored() == {"alice": "1 -"}


@async_test
async def test_a_dead_owner_is_not_named(backend: Backend) -> None:
    """No claim has to wait for it."""
    async with registry(backend) as one:
        await one.claim("alice")
        found = await one.claim("alice")
        assert found is not None
        assert found.since is not None
        assert found.replaced == ""


@async_test
async def test_a_position_is_for_its_user_only(backend: Backend) -> None:
    """Another user, or a former one, begins at the last message."""
    async with registry(backend) as one:
        for user, comes_back in (("42", False), ("42", True), ("43", False), (None, False)):
            found = await one.claim("alice", user)
            assert found is not None
            assert (found.since is not None) is comes_back
            await broadcast(one, 1)
            await one.release("alice")
        found = await one.claim("alice")
        assert found is not None
        assert found.since == Position(await one.epoch(), 3)


@async_test
async def test_positions_are_kept_for_as_long_as_the_history(backend: Backend) -> None:
    """Those that nobody stores again are forgotten with the window after theirs."""
    async with registry(backend) as one:
        await one.claim("alice")
        await one.release("alice", 0)
        for comes_back in (True, False):
            with backend.sync_client() as client:
                client.hincrby(one.positions, "", -1000 * (SECONDS + 1))
            await one.claim("bob")
            await one.store("bob", one.held["bob"], 0)
            assert set(one.stored()) == {"bob"}
            assert ("alice" in one.stored(one.former)) is comes_back
        assert set(one.stored(one.former)) == {"bob"}
        found = await one.claim("alice")
        assert found is not None
        assert found.since is None


@pytest.mark.parametrize(
    "entry", ["", "garbage", "1 2", "x 0 -", "1 9999999999999999 -", "1 -1 -", "1 2 3 4"]
)
@async_test
async def test_an_entry_that_is_none_counts_as_absent(backend: Backend, entry: str) -> None:
    """The id is a newcomer, and has an entry again."""
    async with registry(backend) as one:
        await one.claim("bob")
        with backend.sync_client() as client:
            client.hset(one.positions, "alice", entry)
            client.hset(one.positions, "", "garbage")
        found = await one.claim("alice")
        assert found is not None
        assert found.since is None
        assert one.stored()["alice"] == "0 -"


@async_test
async def test_keys_of_a_wrong_type_are_made_anew(backend: Backend) -> None:
    """Whichever script meets them."""
    async with registry(backend) as one:
        await one.claim("alice")
        with backend.sync_client() as client:
            for key in (one.positions, one.former):
                client.delete(key)
                client.set(key, "text")
        await one.store("alice", one.held["alice"], 0)
        assert one.stored() == {"alice": "0 -"}
        with backend.sync_client() as client:
            client.delete(one.positions)
            client.rpush(one.positions, "text")
        found = await one.claim("alice")
        assert found is not None
        assert found.since is None


@async_test
async def test_a_position_of_another_epoch_is_told_and_kept(backend: Backend) -> None:
    """So that each newcomer learns that something is lost, until one has heard that."""
    async with registry(backend) as one:
        await one.claim("alice")
        with backend.sync_client() as client:
            client.hset(one.positions, "alice", "77 5 -")
        found = await one.claim("alice")
        assert found is not None
        assert found.since == Position("77", 5)
        assert one.stored() == {"alice": "5 -"}


@async_test
async def test_a_claim_without_a_history_finds_nothing(backend: Backend) -> None:
    """And stores nothing; what others store is kept, as Redis may have lost the history."""
    async with registry(backend, recorded=False) as one:
        assert await one.claim("alice") is None
        assert backend.keys_of("positions") == []
        entry = [("alice", one.held.pop("alice"), "1 1 -")]
        await one.claims.release(one.topology.current, ROOM, entry, deadline_in(20))
        assert one.stored() == {"alice": "1 -"}
    async with registry(backend) as one:
        found = await one.claim("alice")
        assert found is not None
        assert found.since == Position("1", 1)
