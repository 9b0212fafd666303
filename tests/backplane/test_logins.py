"""Sockets are made with the address, credentials and TLS of a client, and nothing else of it."""

from pathlib import Path

import pytest
from redis.asyncio import Connection, ConnectionPool, Redis, SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from cluster_pool.backplane.locations import read_location
from cluster_pool.backplane.logins import Login, of_pool
from cluster_pool.exceptions import InvalidValueError


def test_time_outs_retries_and_decoding_of_a_client_are_ignored() -> None:
    """A socket that retried by itself could deliver a message twice."""
    client = Redis(
        host="h",
        password="s3cret",
        client_name="mine",
        decode_responses=True,
        socket_timeout=9,
        retry=Retry(NoBackoff(), 9),
        protocol=3,
    )
    made = of_pool(client.connection_pool).make(2.0)
    assert isinstance(made, Connection)
    assert (made.host, made.password, made.client_name) == ("h", "s3cret", "mine")
    assert made.socket_timeout is None
    assert made.socket_connect_timeout == 2.0
    assert made.retry.get_retries() == 0
    assert made.get_protocol() == 2
    assert made.encoder.decode_responses is False


def test_the_same_login_leads_to_another_server() -> None:
    """A cluster and Sentinels have several."""
    login = of_pool(ConnectionPool.from_url("rediss://me:s3cret@a:1/2"))
    other = login.at(("::1", 7))
    assert (login.shown, other.shown) == ("rediss://me:***@a:1/2", "rediss://me:***@[::1]:7/2")
    assert (login.where, other.where, other.database) == (("a", 1), ("::1", 7), "2")
    assert other.tls
    assert other.secrets == ["s3cret"]


@pytest.mark.parametrize("option", ["ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile"])
def test_a_missing_tls_file_is_named(option: str) -> None:
    """Before anything is connected: the error of a socket would not name the file."""
    with pytest.raises(InvalidValueError, match=f"{option}: '/nowhere' cannot be read"):
        Login(SSLConnection, {"host": "a", option: "/nowhere"}).check()
    with pytest.raises(InvalidValueError, match=f"{option}: '/nowhere' cannot be read"):
        read_location(f"rediss://a?{option}=/nowhere")


def test_an_invalid_tls_file_is_refused(tmp_path: Path) -> None:
    """So is an unknown list of ciphers."""
    text = tmp_path / "text"
    text.write_text("no certificate")
    for settings in (
        {"ssl_ca_certs": str(text)},
        {"ssl_certfile": str(text), "ssl_keyfile": str(text)},
        {"ssl_ciphers": "none-of-these"},
    ):
        with pytest.raises(InvalidValueError, match="its TLS options cannot be used"):
            Login(SSLConnection, {"host": "a", **settings}).check()
