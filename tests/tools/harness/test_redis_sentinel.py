"""Servers under sentinels: what a failover, by order or by death, does to them."""

import pytest

from tests.servers import BINARIES
from tools.harness.redis_sentinel import RedisSentinel
from tools.harness.servers import RedisServer

pytestmark = pytest.mark.real


@pytest.mark.slow
@pytest.mark.parametrize("flavour", BINARIES)
def test_sentinels_promote_a_replica_by_order_and_when_the_primary_dies(flavour: str) -> None:
    """Earlier data are there; the old primary, or one that comes back, follows."""

    def make(*options: str) -> RedisServer:
        return RedisServer(BINARIES[flavour], *options)

    with RedisSentinel(make, program=BINARIES[flavour]) as redis:
        first, second = redis.servers
        assert redis.primary is first
        assert redis.replicas == [second]
        assert redis.url.startswith("redis+sentinel://127.0.0.1:")
        assert redis.url.endswith("/pool")
        first.call("SET", "written", "before")
        assert redis.failover() is second
        redis.wait_until_whole()
        assert second.call("GET", "written") == "before"
        second.server.kill()
        assert redis.wait_for_another(second) is first
        assert first.call("GET", "written") == "before"
        second.server.start()
        redis.wait_until_whole()
        redis.kill()
        redis.start()
        redis.wait_until_whole()
        (other,) = (one for one in redis.servers if one is not redis.primary)
        assert redis.replicas == [other]
    assert not any(one.server.folder.exists() for one in (*redis.servers, *redis.sentinels))


@pytest.mark.slow
def test_a_primary_that_is_cut_off_is_replaced_and_goes_on_alone() -> None:
    """It becomes a replica when the sentinels reach it again, and loses what it accepted alone."""
    with RedisSentinel(apart=True) as redis:
        first, second = redis.servers
        redis.cut_off(first)
        assert redis.wait_for_another(first) is second
        first.call("SET", "key", "accepted alone")
        second.call("SET", "key", "accepted by its successor")
        assert first.is_primary
        redis.heal()
        redis.wait_until_whole()
        assert first.follows(second.port)
        assert first.call("GET", "key") == "accepted by its successor"
