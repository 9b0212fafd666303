"""Releases on their way: batches by namespace, and again what was not answered."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from redis.exceptions import MovedError

from cluster_pool import BackplaneUnavailableError, Connection
from cluster_pool.cluster.release_batcher import ReleaseBatcher
from cluster_pool.core.claims import Claim
from cluster_pool.local.membership import Membership
from cluster_pool.testing import FakeWebSocket
from tests.support import async_test

Answers = list[bool | None]


class Topology:
    """Has every namespace at one shard, which may change."""

    def __init__(self, spans: bool) -> None:
        self.spans = spans
        self.shard = "first"
        self.looks = 0

    def of(self, namespace: str) -> str:
        return self.shard

    def look_again(self) -> None:
        self.looks += 1


class FakeClaims:
    """Writes down what is released; each call has the next answer, or the error; None if there is
    no answer."""

    def __init__(self, *answers: Answers | Exception | None) -> None:
        self._answers = list(answers)
        self.calls: list[tuple[str, list[str]]] = []

    def release(
        self, generation: Any, namespace: str, claims: list[tuple[str, Claim, str]], deadline: float
    ) -> Coroutine[Any, Any, Answers]:
        self.calls.append((namespace, [id for id, *_ in claims]))
        answer = self._answers.pop(0)

        async def read() -> Answers:
            if answer is None:
                raise BackplaneUnavailableError("the link is gone")
            if isinstance(answer, Exception):
                raise BackplaneUnavailableError("Redis refused") from answer
            return answer

        return read()


def owned(namespace: str, id: str) -> Membership[Connection]:
    """A membership with a claim."""
    membership = Membership(Connection(id, namespace, FakeWebSocket()), namespace, id)
    membership.claim = Claim("start.0", 1, id)
    return membership


class Releasing:
    """A batcher over fake claims, and what it has told."""

    def __init__(self, *answers: Answers | Exception | None, spans: bool = False) -> None:
        self.claims = FakeClaims(*answers)
        self.told: list[tuple[str, bool | None]] = []
        claims: Any = self.claims
        self.topology: Any = Topology(spans)
        self.batcher = ReleaseBatcher(
            self.topology,
            claims,
            lambda one: "",
            lambda one, emptied: self.told.append((one.id, emptied)),
        )

    async def flush(self) -> None:
        """Write the waiting releases, and read the replies."""
        generation: Any = None
        await asyncio.gather(*self.batcher.write(generation, self.batcher.pop_waiting(100), 0.0))


@async_test
async def test_releases_of_a_namespace_go_together_and_say_which_one_emptied_it() -> None:
    """One call for each namespace."""
    releasing = Releasing([False, True], [True])
    for namespace, id in [("n", "a"), ("m", "b"), ("n", "c")]:
        releasing.batcher.add(owned(namespace, id))
    await releasing.flush()
    assert releasing.claims.calls == [("n", ["a", "c"]), ("m", ["b"])]
    assert releasing.told == [("a", False), ("c", True), ("b", True)]
    assert not releasing.batcher.waiting


@async_test
async def test_a_release_that_was_not_answered_goes_again_only_when_that_is_said() -> None:
    """A heartbeat says so: until then Redis may be away."""
    releasing = Releasing(None, [False])
    releasing.batcher.add(owned("n", "a"))
    await releasing.flush()
    assert (releasing.told, releasing.batcher.waiting) == ([], False)
    releasing.batcher.retry()
    assert releasing.batcher.waiting
    await releasing.flush()
    assert releasing.told == [("a", False)]


@async_test
async def test_a_claim_that_was_taken_over_meanwhile_is_not_released() -> None:
    """Its claim has gone already; the membership departs all the same."""
    releasing = Releasing()
    membership = owned("n", "a")
    releasing.batcher.add(membership)
    membership.claim = None
    await releasing.flush()
    assert releasing.claims.calls == []
    assert releasing.told == [("a", False)]


@async_test
async def test_a_release_that_found_no_claim_puts_its_namespace_in_doubt() -> None:
    """Its count may be wrong: the reconciler looks at it, once."""
    releasing = Releasing([None])
    releasing.batcher.add(owned("n", "a"))
    await releasing.flush()
    assert releasing.batcher.pop_doubted() == {"n"}
    assert releasing.batcher.pop_doubted() == set()


@async_test
async def test_the_latest_releases_of_a_shard_are_doubted_when_it_may_have_lost_them() -> None:
    """Each time, and those of other shards not at all; one Redis remembers none."""
    for spans in (True, False):
        releasing = Releasing([True], [True], spans=spans)
        for namespace in ("here", "elsewhere"):
            releasing.batcher.add(owned(namespace, "a"))
        await releasing.flush()
        releasing.batcher.doubt_latest(lambda namespace: namespace == "here")
        for _ in range(2):  # the first may have compared with the primary that goes
            releasing.batcher.doubt_latest(lambda namespace: namespace == "here")
            assert releasing.batcher.pop_doubted() == ({"here"} if spans else set())


@async_test
async def test_a_release_whose_slot_has_moved_goes_again_at_once() -> None:
    """As soon as the new map is read; until then, and after other refusals, it waits."""
    moved = MovedError("5000 10.0.0.1:6379")
    releasing = Releasing(moved, moved, [True], spans=True)
    releasing.batcher.add(owned("n", "a"))
    await releasing.flush()
    assert (releasing.topology.looks, releasing.batcher.waiting) == (1, False)
    releasing.batcher.retry()
    flushing = asyncio.create_task(releasing.flush())
    await asyncio.sleep(0)
    releasing.topology.shard = "second"
    await flushing
    assert releasing.batcher.waiting
    await releasing.flush()
    assert releasing.told == [("a", True)]


@async_test
async def test_a_namespace_where_an_id_was_taken_over_is_doubted_like_one_with_a_release() -> None:
    """Its shard may have lost that, too."""
    releasing = Releasing(spans=True)
    releasing.batcher.remember("n")
    releasing.batcher.doubt_latest(lambda namespace: True)
    assert releasing.batcher.pop_doubted() == {"n"}
