"""The address of Redis: shown without its password, and asked for the current primary."""

import logging
import re
import traceback
from functools import partial
from typing import Any
from urllib.parse import quote

import pytest
from redis.asyncio import Redis
from redis.exceptions import NoPermissionError

from cluster_pool import (
    BackplaneUnavailableError,
    ClusterPool,
    ClusterPoolError,
    Publisher,
    SyncPublisher,
)
from cluster_pool.backplane.address import Address
from cluster_pool.backplane.locations import read_location
from cluster_pool.exceptions import InvalidValueError
from tests.backplane.stub_sentinel import StubSentinel
from tests.servers import BINARIES, RedisServer
from tests.support import async_test
from tools.harness.ports import free_port
from tools.harness.redis_sentinel import RedisSentinel

DATABASE_2 = [
    "redis://me:s3cret@127.0.0.1:1/2",
    "redis://127.0.0.1:1/0?db=2",
    "unix:///nowhere?db=2&password=s3cret",
    Redis(db=2, password="s3cret"),
    Redis(db="2"),  # type: ignore[arg-type]  # as some read it from their settings
]


@pytest.mark.parametrize("redis", DATABASE_2)
@pytest.mark.parametrize("kind", [ClusterPool, Publisher, SyncPublisher])
def test_a_database_other_than_0_needs_another_prefix(kind: Any, redis: Any) -> None:
    """Channels belong to no database: the default prefix in two databases would be one cluster."""
    for options in ({}, {"prefix": "cluster_pool"}):
        with pytest.raises(
            InvalidValueError, match=r"database '?2.* prefix= \(--prefix\)"
        ) as caught:
            kind(redis, **options)
        assert "s3cret" not in str(caught.value)
    kind(redis, prefix="staging")


@pytest.mark.parametrize(
    "redis",
    ["redis://127.0.0.1:1", "redis://127.0.0.1:1/", "redis://127.0.0.1:1/0", Redis(), Redis(db=0)],
)
def test_database_0_is_for_the_default_prefix(redis: Any) -> None:
    """However the database is spelled."""
    ClusterPool(redis)


PASSWORDS = [
    *("s3cr3t", "987#654", "98/76", "a?b", "p@ss", "a:b", "50%off", "x&y=z", "[v6]", "a b"),
    *("1", "é✓", "tab\there", "987?password=7@98", "\\back'quote\"", "qzx#"),
]


@pytest.mark.parametrize("password", PASSWORDS)
@pytest.mark.parametrize(
    "form",
    [
        "redis://:{}@127.0.0.1:1/0",
        "redis://me:{}@127.0.0.1:1",
        "rediss://me:{}@127.0.0.1:1",
        "redis://127.0.0.1:1/0?password={}",
        "redis://127.0.0.1:1?username=me&password={}",
        "unix://me:{}@/nowhere/at.sock",
        "unix:///nowhere/at.sock?password={}",
        "redis+sentinel://me:{}@127.0.0.1:1,127.0.0.1:2/main",
    ],
)
@async_test
async def test_a_password_is_never_shown_however_it_was_written(
    caplog: pytest.LogCaptureFixture, form: str, password: str
) -> None:
    """Plain or percent-encoded: it is used as it is meant, or refused; no part of it is shown."""
    caplog.set_level(logging.DEBUG, "cluster_pool")
    for url in (form.format(password), form.format(quote(password, safe=""))):
        with pytest.raises(ClusterPoolError) as caught:
            await Publisher(url).start()
        shown = [*traceback.format_exception(caught.value), caplog.text]
        texts = [re.sub(r"line \d+", "line", text) for text in shown]
        if isinstance(caught.value, InvalidValueError):
            assert url == form.format(password), "percent-encoded is always right"
            assert "percent-encode" in str(caught.value)
        else:
            assert ":***@" in Address(url, 2).shown
            if url != form.format(password):
                assert read_location(url).login.settings["password"] == password
        for part in (password, *password.replace("/", "#").replace("?", "#").split("#")):
            if len(part) > 1 and part not in ("me",):
                assert not any(part in text for text in texts), texts


@async_test
async def test_one_server_is_its_own_primary(own_server: RedisServer) -> None:
    """Every generation uses the same address, with the given credentials."""
    address = Address(own_server.url, 2)
    primary = await address.primary()
    assert (address.kind, address.seeds, primary.shown) == ("single", [], address.shown)
    connection = await primary.open()
    try:
        await connection.send_command("ACL", "WHOAMI")
        with pytest.raises(NoPermissionError):  # the user of the URL has no right to ask
            await connection.read_response()
    finally:
        await connection.disconnect(nowait=True)


def test_the_servers_of_a_cluster_are_reached_with_what_was_given_for_all() -> None:
    """Seeds as they stand in the URL; announced addresses as they are mapped."""
    address = Address(
        "rediss+cluster://me:s3cret@a:1,b:2?ssl_cert_reqs=none&address_remap=c:3=d:4", 2
    )
    assert address.kind == "cluster"
    assert [one.shown for one in address.seeds] == [
        "rediss://me:***@a:1/0",
        "rediss://me:***@b:2/0",
    ]
    assert address.at(("c", 3)).shown == "rediss://me:***@c:3/0"
    assert address.announced(("c", 3)).shown == "rediss://me:***@d:4/0"
    login = address.announced(("c", 3)).login
    assert (login.settings["password"], login.settings["ssl_cert_reqs"]) == ("s3cret", "none")


@async_test
async def test_an_unreachable_address_announced_by_sentinels_is_mapped(
    own_server: RedisServer,
) -> None:
    """As behind NAT: the error names the option by which the right address is found."""
    own_server.command("CONFIG", "SET", "port", str(port := free_port()))
    async with StubSentinel(("192.0.2.1", 6379), 1) as stub:
        places = f"redis+sentinel://{own_server.user_info}127.0.0.1:{stub.port}/main"
        with pytest.raises(
            BackplaneUnavailableError, match=r"192\.0\.2\.1:6379.*\(.* address_remap="
        ):
            await (await Address(places, 0.3).primary()).open()
        for remap in (f"192.0.2.1:6379=127.0.0.1:{port}", f"*:6379=127.0.0.1:{port}"):
            primary = await Address(f"{places}?address_remap={remap}", 2).primary()
            assert primary.shown == f"redis://cluster_pool:***@127.0.0.1:{port}/0"
            await (await primary.open()).disconnect(nowait=True)


@pytest.mark.parametrize("flavour", BINARIES)
@async_test
async def test_sentinels_that_want_a_password_of_their_own(flavour: str) -> None:
    """Without it the error names the option; a wrong one is told as such."""
    with RedisSentinel(partial(RedisServer, flavour), program=BINARIES[flavour]) as redis:
        for sentinel in redis.sentinels:
            sentinel.call("ACL", "SETUSER", "default", "resetpass", ">s3cret")
        with pytest.raises(BackplaneUnavailableError, match="give sentinel_username= and sent"):
            await Address(redis.url, 2).primary()
        with pytest.raises(BackplaneUnavailableError, match="WRONGPASS") as caught:
            await Address(f"{redis.url}?sentinel_password=an0ther", 2).primary()
        assert "an0ther" not in str(caught.value)
        primary = await Address(f"{redis.url}?sentinel_password=s3cret", 2).primary()
        await (await primary.open()).disconnect(nowait=True)


@pytest.mark.parametrize("flavour", BINARIES)
@async_test
async def test_a_service_that_no_sentinel_knows_is_named(
    flavour: str, caplog: pytest.LogCaptureFixture
) -> None:
    """With those that it knows; of the right one the log has the primary, once."""
    caplog.set_level(logging.INFO, "cluster_pool")
    with RedisSentinel(partial(RedisServer, flavour), program=BINARIES[flavour]) as redis:
        with pytest.raises(
            BackplaneUnavailableError, match="does not know the service 'main', but 'pool'"
        ):
            await Address(redis.url.replace("/pool", "/main"), 2).primary()
        address = Address(redis.url, 2)
        primaries = [await address.primary() for _ in range(3)]
        assert {one.shown for one in primaries} == {
            f"redis://cluster_pool:***@127.0.0.1:{redis.primary.port}/0"
        }
        said = f"the primary of 'pool' is {primaries[0].shown}"
        assert [record.message for record in caplog.records] == [said]
