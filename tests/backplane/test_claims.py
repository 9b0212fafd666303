"""The scripts that make claims and give them up, on each kind of server."""

import pytest

from cluster_pool import BackplaneUnavailableError
from cluster_pool.backplane.calls import deadline_in
from cluster_pool.backplane.claims import PAGE
from cluster_pool.backplane.scripts import sources
from cluster_pool.core.keys import Keys
from tests.clusters import Backend, claim_of
from tests.servers import RedisServer
from tests.support import async_test


def test_the_memory_of_releases_that_emptied_a_namespace_is_bounded(backend: Backend) -> None:
    """Each is reported to its retry until confirmed; above the bound the oldest are forgotten."""
    keys = Keys(backend.prefix)
    names = [
        keys.members("n"),
        keys.owners("n"),
        keys.emptied("n"),
        keys.numbers(keys.channel("n")),
        keys.profiles("n"),
    ]
    with backend.sync_client() as client:
        release = client.register_script(sources()["release"])
        for at in range(120):
            client.hset(keys.members("n"), mapping={"x": f"a.0:{at}:{at}"})
            assert (
                release(names, ["events", "node", "y", "a.0:1:no", "", "x", f"a.0:{at}:{at}", ""])
                == b"02"
            )
        assert client.hlen(keys.emptied("n")) == 100
        retry = [part for at in (0, 119, 60) for part in ("x", f"a.0:{at}:{at}", "")]
        assert release(names, ["events", "node", *retry]) == b"022"
        assert not client.exists(keys.owners("n"))
        client.delete(keys.emptied("n"))


@async_test
async def test_a_long_list_of_namespaces_has_a_deadline_for_each_page(backend: Backend) -> None:
    """Else a busy Redis would never say all of what a dead node with 100,000 had."""
    names = [f"room-{at}" for at in range(2 * PAGE + 1)]
    async with backend.pools(1) as (one,), backend.client() as client:
        claims = one._parts.backplane.claims
        key = Keys(backend.prefix).namespaces("gone.0")
        await client.sadd(key, *names)
        asked: list[float] = []

        def deadline() -> float:
            asked.append(deadline_in(2.0))
            return asked[-1]

        assert sorted(await claims.namespaces_of("gone.0", deadline)) == sorted(names)
        assert len(set(asked)) >= 2  # Redis gives a page or a little more at a time
        await client.delete(key)


@async_test
async def test_a_profile_is_replaced_in_time_or_not_at_all(own_server: RedisServer) -> None:
    """A call that Redis reads after it has failed changes nothing, and no watcher hears of it."""
    backend = Backend(own_server)
    channel = Keys(backend.prefix).events("room")
    async with backend.pools(1) as (one,):
        claim = claim_of(await one.host("room", "alice"))
        backplane = one._parts.backplane

        async def inform(info: str, seconds: float) -> bool:
            deadline = deadline_in(seconds)
            not_after = backplane.topology.of("room").clock.at(deadline)
            profile = f'{{"info":"{info}"}}'
            return await backplane.claims.inform(
                "room", "alice", claim, profile, not_after, deadline
            )

        async with backend.recording(channel) as heard:
            own_server.freeze()
            with pytest.raises(BackplaneUnavailableError):
                await inform("late", 0.3)
            own_server.thaw()
            assert await inform("in time", 20)
            _, payload = await heard.get()
        assert b'"info":"in time"' in payload
        assert b"late" not in payload


@async_test
async def test_a_call_after_its_deadline_says_so(backend: Backend) -> None:
    """On each kind of server."""
    async with backend.pools(1) as (one,):
        claim = claim_of(await one.host("room", "alice"))
        backplane = one._parts.backplane
        past = backplane.topology.of("room").clock.at(deadline_in(-2.0))
        with pytest.raises(BackplaneUnavailableError, match="nothing was changed"):
            await backplane.claims.inform("room", "alice", claim, "{}", past, deadline_in(20))
