"""The files that we ship for deployment. HAProxy's file is tested in tests/server."""

from collections.abc import Callable
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import ResponseError

from tests.servers import RedisServer


@pytest.mark.parametrize(
    "forbidden",
    [
        lambda client: client.config_get("*"),
        lambda client: client.keys("*"),
        lambda client: client.flushall(),
        lambda client: client.set("elsewhere", "x"),
        lambda client: client.publish("elsewhere", "x"),
        lambda client: client.eval("return redis.call('GET', 'elsewhere')", 0),
    ],
)
def test_the_acl_allows_no_more_than_is_needed(
    own_server: RedisServer, forbidden: Callable[[Redis], Any]
) -> None:
    """Every test with a real server runs under it; outside our prefix it allows nothing."""
    with Redis.from_url(own_server.url) as client:
        client.set("cluster_pool:allowed", "x")
        client.publish("cluster_pool:allowed", "x")
        with pytest.raises(ResponseError, match=r"(?i)permission|can't access"):
            forbidden(client)
