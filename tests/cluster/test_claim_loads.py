"""Claims and releases that wait for a flush, by the shard that they go to."""

import asyncio
from types import SimpleNamespace
from typing import Any

from cluster_pool.cluster.claim_loads import MOST_CLAIMS, MOST_RELEASES, Loads, split
from cluster_pool.cluster.release_batcher import ReleaseBatcher
from tests.support import async_test

TOPOLOGY: Any = SimpleNamespace(of=lambda namespace: namespace[0], shards=["a", "b"])


def pending(namespace: str) -> Any:
    """A claim that waits."""
    won = asyncio.get_running_loop().create_future()
    return SimpleNamespace(membership=member(namespace), won=won)


def member(namespace: str) -> Any:
    return SimpleNamespace(namespace=namespace, claim=None)


@async_test
async def test_waiting_claims_and_releases_go_to_their_shards_once() -> None:
    """A claim whose caller has given up goes nowhere."""
    claims: Any = None
    releases = ReleaseBatcher(
        TOPOLOGY, claims, lambda membership: "", lambda membership, emptied: None
    )
    loads = Loads(TOPOLOGY, releases)
    assert not loads
    first, given_up, other = pending("a1"), pending("a2"), pending("b1")
    given_up.won.cancel()
    loads.claims += [first, given_up, other]
    leaving, doubtful = member("a3"), member("b2")
    releases.add(leaving)
    loads.doubtful.append(doubtful)
    popped = loads.pop()
    assert not loads
    assert popped["a"].claims == [first]  # type: ignore[index]
    assert popped["a"].releases == [leaving]  # type: ignore[index]
    assert popped["b"].claims == [other]  # type: ignore[index]
    assert popped["b"].doubtful == [doubtful]  # type: ignore[index]
    loads.put_back(popped["b"])  # type: ignore[index]
    assert loads.pop().keys() == {"b"}


def test_a_claim_that_takes_nothing_over_waits_while_its_owner_may_be_missing() -> None:
    """At the shard of the claims or of the leases; others do not wait."""
    here, home = (SimpleNamespace(succession=SimpleNamespace(patient_until=at)) for at in (5, 7))
    rejects, takes = SimpleNamespace(takeover=False), SimpleNamespace(takeover=True)
    claims: Any = [rejects, takes]
    shards: Any = (here, home)
    assert split(claims, shards, 4.0) == ([takes], [rejects], 3.0)
    assert split(claims, shards, 7.0) == (claims, [], 0.0)


@async_test
async def test_claims_for_a_shard_that_is_down_wait_until_one_is_up() -> None:
    """Claims are sent again; releases are tried again with the next heartbeat."""
    claims: Any = None
    releases = ReleaseBatcher(
        TOPOLOGY, claims, lambda membership: "", lambda membership, emptied: None
    )
    loads = Loads(TOPOLOGY, releases)
    waits, ends = pending("a1"), pending("a2")
    loads.claims += [waits, ends]
    releases.add(member("a3"))
    loads.park(loads.pop()["a"])  # type: ignore[index]
    assert not loads
    ends.won.cancel()
    loads.unpark()
    assert loads.pop()["a"].claims == [waits]  # type: ignore[index]
    releases.retry()
    assert len(loads.pop()["a"].releases) == 1  # type: ignore[index]


@async_test
async def test_a_flush_takes_so_many_that_its_turns_stay_short() -> None:
    """The rest goes with the next ones, in the order in which it came."""
    claims: Any = None
    one: Any = SimpleNamespace(of=lambda namespace: "redis", shards=["redis"])
    releases = ReleaseBatcher(one, claims, lambda membership: "", lambda membership, emptied: None)
    loads = Loads(one, releases)
    waiting = [pending(f"a{number}") for number in range(MOST_CLAIMS + 1)]
    leaving = [member(f"a{number}") for number in range(MOST_RELEASES + 1)]
    loads.claims += waiting
    for membership in leaving:
        releases.add(membership)
    (first,) = loads.pop().values()
    assert loads
    (second,) = loads.pop().values()
    assert not loads
    assert first.claims + second.claims == waiting
    assert first.releases + second.releases == leaving
    assert len(second.claims) == len(second.releases) == 1


@async_test
async def test_a_silent_shard_holds_up_no_other_in_a_storm() -> None:
    """Its claims are put back behind those that wait for the others."""
    claims: Any = None
    loads = Loads(
        TOPOLOGY,
        ReleaseBatcher(TOPOLOGY, claims, lambda membership: "", lambda membership, emptied: None),
    )
    silent = [pending(f"a{number}") for number in range(3 * MOST_CLAIMS)]
    others = [pending(f"b{number}") for number in range(MOST_CLAIMS)]
    loads.claims += silent + others
    loads.put_back(loads.pop()["a"])  # type: ignore[index]
    popped = loads.pop()
    assert popped["a"].claims == silent[2 * MOST_CLAIMS :]  # type: ignore[index]
    assert popped["b"].claims == others  # type: ignore[index]
    assert loads.claims == silent[: 2 * MOST_CLAIMS]
