"""A server that is killed, frozen and started again at the same address."""

import pytest
from redis import Redis
from redis.exceptions import TimeoutError as RedisTimeoutError

from tools.harness.servers import RedisServer


def test_a_server_comes_back_empty_or_from_its_snapshot() -> None:
    """As it is told; its folder goes with it."""
    with RedisServer() as server, Redis.from_url(server.url) as client:
        client.set("saved", "1")
        server.save()
        client.set("later", "1")
        server.kill()
        server.start(empty=False)
        assert client.keys() == [b"saved"]
        server.kill()
        server.start()
        assert client.keys() == []
    assert not server.folder.exists()


def test_a_frozen_server_keeps_its_sockets_and_says_nothing() -> None:
    """Until it is thawed."""
    with RedisServer() as server, Redis.from_url(server.url, socket_timeout=0.2) as client:
        client.ping()
        server.freeze()
        with pytest.raises(RedisTimeoutError):
            client.ping()
        server.thaw()
        assert client.ping()


def test_a_server_that_does_not_start_leaves_nothing() -> None:
    """Its folder neither; the error has its own words."""
    server = RedisServer("", "--no-such-option", "1")
    with (
        pytest.raises(RuntimeError, match=r"did not start: exit status 1, .*no-such-option"),
        server,
    ):
        pass
    assert not server.folder.exists()
