"""A cluster: owners of keys, promoted replicas, moves that stop half-way."""

from collections.abc import Iterator

import pytest
from redis.exceptions import ClusterDownError, ResponseError

from tools.harness.members import Member, wait_until
from tools.harness.redis_cluster import RedisCluster, SlotMove

pytestmark = [pytest.mark.real, pytest.mark.slow]


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisCluster]:
    """One for all tests here, each of which leaves it whole."""
    with RedisCluster(node_timeout=1.0, apart=True) as cluster:
        yield cluster
        nodes = cluster.nodes
    assert not any(node.server.folder.exists() for node in nodes)


def test_three_primaries_have_the_slots_and_a_replica_each(redis: RedisCluster) -> None:
    """A key is at one of them, and at its replica."""
    primaries = redis.primaries
    assert primaries == redis.nodes[:3]
    assert [redis.replicas_of(one) for one in primaries] == [[one] for one in redis.nodes[3:]]
    assert [redis.owner(slot) for slot in (0, 8000, 16383)] == primaries
    assert redis.slot_of("cluster_pool:{default}:members") == redis.slot_of("default")
    home = redis.primary_of("key")
    home.call("SET", "key", "value")
    assert home.call("WAIT", 1, 5000) == 1
    for other in set(primaries) - {home}:
        with pytest.raises(ResponseError, match=f"{redis.slot_of('key')} .*:{home.port}"):
            other.call("GET", "key")
    redis.flush()
    assert home.call("DBSIZE") == 0
    assert redis.url.count("127.0.0.1:") == 6


@pytest.mark.parametrize("how", ["", "FORCE", "TAKEOVER"])
def test_replica_is_promoted_by_order(redis: RedisCluster, how: str) -> None:
    """The old primary follows it; nothing is lost."""
    old = redis.primary_of("key")
    (replica,) = redis.replicas_of(old)
    old.call("SET", "key", how)
    old.call("WAIT", 1, 5000)
    redis.promote(replica, how)
    assert redis.primary_of("key") is replica
    redis.wait_until_whole()
    assert redis.replicas_of(replica) == [old]
    assert replica.call("GET", "key") == how


def test_killed_primary_is_replaced_and_comes_back_as_a_replica(redis: RedisCluster) -> None:
    """Its slots are served meanwhile."""
    old = redis.primary_of("key")
    (replica,) = redis.replicas_of(old)
    old.server.kill()
    redis.wait_until_whole()
    assert redis.primary_of("key") is replica
    old.server.start()
    redis.wait_until_whole()
    assert redis.replicas_of(replica) == [old]


def test_frozen_primary_is_replaced_and_follows_when_it_wakes(redis: RedisCluster) -> None:
    """As after a cut of its network."""
    old = redis.primary_of("key")
    (replica,) = redis.replicas_of(old)
    old.server.freeze()
    redis.promote(replica, "TAKEOVER")
    old.server.thaw()
    redis.wait_until_whole()
    assert replica.follows(old.port) is False
    assert old.follows(replica.port)


def test_primary_that_is_cut_off_is_replaced_and_follows_when_it_is_reached_again(
    redis: RedisCluster,
) -> None:
    """It serves for as long as it takes the others; what it accepts alone is lost."""
    old = redis.primary_of("key")
    redis.cut_off(old)
    try:
        old.call("SET", "key", "accepted alone")
        redis.wait_for_another(old)
        new = redis.primary_of("key")
        assert new is not old
        wait_until(lambda: is_down(old), "the former primary has missed the others", 20)
        new.call("SET", "key", "accepted by its successor")
    finally:
        redis.heal()
    redis.wait_until_whole()
    assert redis.replicas_of(new) == [old]
    assert new.call("GET", "key") == "accepted by its successor"


def test_slot_stops_half_way_and_each_key_is_in_one_place(redis: RedisCluster) -> None:
    """The source redirects clients of a key that has moved to the target."""
    source = redis.primary_of("{tag}")
    target = next(one for one in redis.primaries if one is not source)
    for key in ("{tag}1", "{tag}2"):
        source.call("SET", key, "value")
    move = SlotMove(redis, redis.slot_of("{tag}"), target)
    assert move.keys == ["{tag}1", "{tag}2"]
    assert move.carry("{tag}1")
    assert not move.carry("{tag}1")
    assert refusal(source, "GET", "{tag}1").startswith("ASK ")
    assert refusal(source, "MGET", "{tag}1", "{tag}2").startswith("TRYAGAIN")
    assert source.call("GET", "{tag}2") == "value"
    move.finish()
    redis.wait_until_whole()
    assert redis.primary_of("{tag}") is target
    assert target.call("MGET", "{tag}1", "{tag}2") == ["value", "value"]
    assert refusal(source, "GET", "{tag}2").startswith("MOVED ")


def test_broken_off_move_leaves_the_slot_where_it_was(redis: RedisCluster) -> None:
    """With all its keys."""
    source = redis.primary_of("{off}")
    target = next(one for one in redis.primaries if one is not source)
    source.call("SET", "{off}", "value")
    move = SlotMove(redis, redis.slot_of("{off}"), target)
    move.carry("{off}")
    move.back()
    assert redis.primary_of("{off}") is source
    assert source.call("GET", "{off}") == "value"
    redis.move_slot(move.slot, target)
    redis.wait_until_whole()
    assert target.call("GET", "{off}") == "value"


def is_down(node: Member) -> bool:
    """Whether a server says that it serves nothing without the others."""
    try:
        node.call("GET", "key")
    except ResponseError as error:
        return isinstance(error, ClusterDownError)
    return False


def refusal(node: Member, *words: str) -> str:
    """A server's error, with its kind in front."""
    with pytest.raises(ResponseError) as raised:
        node.call(*words)
    kinds = {
        "AskError": "ASK ",
        "ClusterDownError": "CLUSTERDOWN ",
        "MovedError": "MOVED ",
        "TryAgainError": "TRYAGAIN ",
    }
    return kinds.get(type(raised.value).__name__, "") + str(raised.value)
