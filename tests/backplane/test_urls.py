"""URLs of Redis: refused where in doubt, and shown without passwords as what they are."""

from typing import Any

import pytest
from fakeredis import FakeAsyncRedis
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.sentinel import Sentinel

from cluster_pool import (
    ClusterPool,
    Publisher,
)
from cluster_pool.exceptions import InvalidValueError


def test_a_url_in_doubt_is_refused_without_being_shown() -> None:
    """What would be read as a port, a host or an option is part of a password."""
    for url in (
        *("redis://:123#456@127.0.0.1", "redis://:12/34@127.0.0.1", "redis://:12?34@127.0.0.1"),
        *("redis://me:p@12/34@127.0.0.1", "redis://127.0.0.1?password=12&34", "redis://:34 12@x"),
    ):
        with pytest.raises(InvalidValueError, match="percent-encode") as caught:
            Publisher(url)
        assert "12" not in str(caught.value).replace("127.0.0.1", "")
        assert "34" not in str(caught.value)


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
]


@pytest.mark.parametrize(("redis", "shown"), SHOWN)
def test_an_address_is_shown_as_what_it_is(redis: Any, shown: str) -> None:
    """TLS as rediss, Sentinels with their service; never a localhost that is not meant."""
    assert ClusterPool(redis).address == shown


def test_a_url_of_another_kind_is_refused() -> None:
    """Bad input is refused when it is given."""
    for url in ("http://x", "localhost", "", 5, "redis://127.0.0.1/0?nonsense=1"):
        with pytest.raises(InvalidValueError):
            Publisher(url)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "url",
    [
        *("redis://:s3cret/x@127.0.0.1", "redis://u:s3cret?#@127.0.0.1", "redis://u:a@s3cret@x:y"),
        *("redis://u:s3cret@127.0.0.1:port/0", "redis://u:s3cret@127.0.0.1/0?db=x", "u:s3cret@x"),
        *("redis://127.0.0.1/0?password=s3cret&db=x", "redis://u:s3cret@127.0.0.1/0?nonsense=1"),
    ],
)
def test_a_url_that_is_none_keeps_its_password(url: str) -> None:
    """Also when what is special in it was not percent-encoded."""
    with pytest.raises(InvalidValueError) as caught:
        Publisher(url)
    assert "s3cret" not in str(caught.value)
