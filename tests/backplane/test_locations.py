"""The ways to name a Redis: read as they are meant, and shown without their password."""

from typing import Any

import pytest
from fakeredis import FakeAsyncRedis
from redis.asyncio import BlockingConnectionPool, Redis, RedisCluster, SSLConnection
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.sentinel import Sentinel

from cluster_pool import Publisher
from cluster_pool.backplane.locations import read_location
from cluster_pool.exceptions import InvalidValueError

SHOWN: list[tuple[Any, str]] = [
    ("redis://10.0.0.1", "redis://10.0.0.1:6379/0"),
    ("rediss://u:p@[::1]:1/0", "rediss://u:***@[::1]:1/0"),
    ("redis://s3cret@10.0.0.1:1", "redis://***@10.0.0.1:1/0"),
    ("redis://10.0.0.1:1?password=a%26b", "redis://:***@10.0.0.1:1/0"),
    ("unix://u:p@/run/redis.sock?db=0", "unix://u:***@/run/redis.sock"),
    ("unix:///run/re@dis.sock", "unix:///run/re@dis.sock"),
    (Redis(host="h", port=7, ssl=True, password="x"), "rediss://:***@h:7/0"),
    (Redis(unix_socket_path="/run/r.sock"), "unix:///run/r.sock"),
    (Redis(connection_pool=BlockingConnectionPool(host="h", port=7)), "redis://h:7/0"),
    (FakeAsyncRedis(), "fakeredis"),
    (
        Sentinel([("a", 26379), ("::1", 2)]).master_for("my service", password="x"),
        "redis+sentinel://:***@a:26379,[::1]:2/my%20service/0",
    ),
    (Sentinel([("a", 1)]).master_for("main", ssl=True), "rediss+sentinel://a:1/main/0"),
    (Sentinel([("a", 1)]).master_for("main", db=2), "redis+sentinel://a:1/main/2"),
    (RedisCluster(host="10.0.0.1", port=7, password="x"), "redis+cluster://:***@10.0.0.1:7"),
    (
        RedisCluster(startup_nodes=[ClusterNode("a", 1), ClusterNode("b", 2)], ssl=True),
        "rediss+cluster://a:1,b:2",
    ),
    ("redis+sentinel://u:p@a,b:1/main", "redis+sentinel://u:***@a:26379,b:1/main/0"),
    ("rediss+sentinel://a/my%20service/2", "rediss+sentinel://a:26379/my%20service/2"),
    ("redis+sentinel://a/m?sentinel_password=s3cret", "redis+sentinel://a:26379/m/0"),
    ("redis+cluster://a,b:1,[::1]:2", "redis+cluster://a:6379,b:1,[::1]:2"),
    ("rediss+cluster://:p@a/", "rediss+cluster://:***@a:6379"),
]


@pytest.mark.parametrize(("redis", "shown"), SHOWN)
def test_an_address_is_shown_with_its_kind(redis: Any, shown: str) -> None:
    """TLS as rediss, Sentinels with their service; never a localhost that is not meant."""
    assert read_location(redis).shown == shown


def test_sentinels_have_credentials_of_their_own_and_the_same_tls() -> None:
    """As the client has them; only TLS may differ between Sentinels and Redis."""
    location = read_location(
        "rediss+sentinel://me:s3cret@a,b/main/2?sentinel_username=s&sentinel_password=t&"
        "ssl_check_hostname=false"
    )
    assert location.login.settings["password"] == "s3cret"
    assert [one.where for one in location.sentinels] == [("a", 26379), ("b", 26379)]
    for login in location.sentinels:
        assert issubclass(login.kind, SSLConnection)
        assert login.settings["ssl_check_hostname"] is False
        assert (login.settings["username"], login.settings["password"]) == ("s", "t")
        assert login.database == "0"
    watching = Sentinel([("a", 5)], sentinel_kwargs={"password": "t"}, min_other_sentinels=1)
    location = read_location(watching.master_for("main", password="s3cret", ssl=True))
    assert location.login.tls
    assert location.login.settings["password"] == "s3cret"
    assert not location.sentinels[0].tls
    assert location.sentinels[0].settings["password"] == "t"
    assert location.min_sentinels == 1


def test_announced_addresses_are_mapped_as_the_client_maps_them() -> None:
    """redis-py has a function for a cluster, and one host for names from Sentinels."""
    client = RedisCluster(host="10.0.0.1", port=7, address_remap=lambda where: (where[0], 1))
    assert read_location(client).remap(("a", 2)) == ("a", 1)
    watching = Sentinel([("a", 5)], force_master_ip="b")
    assert read_location(watching.master_for("main")).remap(("a", 2)) == ("b", 2)
    url = "redis+cluster://a?address_remap=a:2=b:3"
    assert read_location(url).remap(("a", 2)) == ("b", 3)
    assert read_location("redis+sentinel://a/main").remap(("a", 2)) == ("a", 2)


def test_a_client_for_replicas_is_refused() -> None:
    """It cannot write."""
    with pytest.raises(InvalidValueError, match=r"give master_for\(…\), not slave_for"):
        Publisher(Sentinel([("a", 1)]).slave_for("main"))


def test_neither_a_url_nor_a_client_is_refused() -> None:
    """So is a client without asyncio."""
    from redis import Redis as SyncRedis

    for what in (5, SyncRedis(), None):
        with pytest.raises(
            InvalidValueError, match=r"redis must be a URL, a redis\.asyncio\.Redis"
        ):
            Publisher(what)  # type: ignore[arg-type]
