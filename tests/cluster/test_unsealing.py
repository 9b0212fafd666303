"""Items under a seal, opened for a process that holds connections and for one that holds none."""

from typing import Any

import pytest

from cluster_pool.backplane.inbox import Heard
from cluster_pool.cluster.publishing import Publishing
from cluster_pool.cluster.unsealing import Unsealing, unsealing_of
from cluster_pool.core import envelope
from cluster_pool.core.envelope import BrokenEnvelopeError
from cluster_pool.core.seals import BOUND, ROUTED, Seals
from tests.cluster.test_node import setup_of
from tests.clusters import Backend
from tests.support import async_test

SECRET = "sixteen bytes at least"
CHANNEL = "p:{n}"


class Claims:
    """Says that everything older than ``newest`` is a recording, or came before everybody."""

    def __init__(self, newest: int, later: frozenset[str] | None) -> None:
        self.newest = newest
        self._later = later

    def check(self, named: str, counter: int, item: list[Any], now: int) -> None:
        if counter < self.newest:
            raise BrokenEnvelopeError("replay")

    def later(self, namespace: str, counter: int) -> frozenset[str] | None:
        return self._later


def sealed(kind: int, scope: str, item: bytes, now: int) -> list[Any]:
    """An item as another process seals it."""
    (read,) = envelope.read_items(Seals(SECRET).seal(kind, scope, "sender", item, now))
    return read


@async_test
async def test_an_item_is_opened_for_those_it_was_sealed_for() -> None:
    """Members newer than a broadcast are left out; a forged or recorded item is dropped."""
    setup = setup_of(Backend(None))
    parts = Publishing(setup)
    backplane = parts.backplane
    assert unsealing_of(backplane, None) is None
    now = 1_000_000_000_000
    backplane.shard.health.clock.hear(now, 0.0, backplane.loop.time())
    message = envelope.broadcast(True, b"x")
    heard = Heard(CHANNEL, 1, b"", 1, "sender")
    item = sealed(BOUND, CHANNEL, message, now)

    def opening(claims: Claims | None) -> Unsealing:
        return Unsealing(
            Seals(SECRET),
            backplane.topology,
            backplane.identity,
            setup.keys,
            setup.counters,
            claims,
        )

    plain = [envelope.TEXT, b"x", []]
    assert opening(None).broadcast(heard, "n", item) == (plain, ())
    assert opening(Claims(now + 5, frozenset("b"))).broadcast(heard, "n", item) == (plain, {"b"})
    assert opening(Claims(now + 5, None)).broadcast(heard, "n", item) is None
    assert setup.counters.dropped_forged == 0
    elsewhere = Heard("p:{m}", 1, b"", 1, "sender")
    assert opening(None).broadcast(elsewhere, "m", item) is None
    assert setup.counters.dropped_forged == 1


@pytest.mark.parametrize(("named", "opened"), [("own", True), ("other", False)])
@async_test
async def test_an_item_that_was_routed_to_another_start_is_refused(
    named: str, opened: bool
) -> None:
    """A stranger that replays a message cannot make a script name a claim of this start."""
    setup = setup_of(Backend(None))
    backplane = Publishing(setup).backplane
    now = 1_000_000_000_000
    backplane.shard.health.clock.hear(now, 0.0, backplane.loop.time())
    scope = setup.keys.node_prefix
    item = sealed(ROUTED, scope, envelope.targeted(True, "n", "a", b"x"), now)
    unsealing = Unsealing(
        Seals(SECRET), backplane.topology, backplane.identity, setup.keys, setup.counters, None
    )
    start = backplane.identity.start if named == "own" else "other"
    heard = Heard(backplane.identity.own_channel, 1, b"", 1, "sender")
    found = unsealing.targeted(heard, f"{start}.0:1:1", item)
    assert (found is not None) is opened
    assert setup.counters.dropped_forged == (not opened)
