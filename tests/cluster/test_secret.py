"""Clusters with a secret: messages of the cluster work, those of strangers do not."""

import asyncio
import contextlib

import pytest

from cluster_pool import Publisher, SendResult
from cluster_pool.core import envelope
from tests.clusters import Backend, Pool, claim_of
from tests.support import async_test, eventually

SECRET = "not known to strangers"


@async_test
async def test_everything_works_with_a_secret(backend: Backend) -> None:
    """Sends, confirmed or not, broadcasts, closes, takeovers, publishers, and a plain PUBLISH."""
    publisher = backend.publisher(secret=SECRET)
    async with backend.pools(secret=SECRET) as (one, two), publisher:
        alice = await one.host("n", "alice")
        bob = await two.host("n", "bob")
        assert await one.send("n", "bob", "1", confirm=True) is SendResult.DELIVERED
        assert await publisher.send("n", "bob", b"2", confirm=True) is SendResult.DELIVERED
        assert await one.send("n", "bob", "3") is SendResult.ROUTED
        await bob.wait_sent(3)
        assert await two.broadcast_message("n", "4", exclude=["x"]) == 2
        await asyncio.gather(*[one.broadcast_message("n", str(at)) for at in range(5, 9)])
        await bob.wait_sent(8)
        await backend.publish(f"{backend.prefix}:{{n}}", "plain")
        assert (await bob.wait_sent(9))[3:] == ["4", "5", "6", "7", "8", "plain"]
        newer = await one.host("n", "bob")
        assert (await bob.wait_closed())[0] == 4409
        assert await two.send("n", "bob", "to the newer", confirm=True) is SendResult.DELIVERED
        await newer.wait_sent()
        assert await two.close("n", "bob", 4000, confirm=True) is SendResult.DELIVERED
        await publisher.close_all("n", 4001)
        assert (await alice.wait_closed())[0] == 4001
        for pool in (one, two):
            assert pool.statistics()["dropped_forged"] == 0
            assert pool.statistics()["dropped_garbage"] == 0


@async_test
async def test_strangers_are_refused_and_counted(backend: Backend) -> None:
    """Unsealed messages and commands in an envelope, and those sealed with another secret."""
    stranger = backend.publisher(secret="another secret of strangers")
    plain: Publisher = backend.publisher()
    async with backend.pools(secret=SECRET) as (one, two), stranger, plain:
        await one.host("n", "alice")
        bob = await two.host("n", "bob")
        for publisher in (stranger, plain):
            await publisher.send("n", "bob", "forged")
            await publisher.broadcast_message("n", "forged")
            await publisher.close("n", "bob", 4000)
            await publisher.close_all("n", 4000)
            result = await publisher.send("n", "bob", "x", confirm=True, timeout=1.5)
            assert result is SendResult.TIMED_OUT
        await one.broadcast_message("n", "end")
        assert await bob.wait_sent() == ["end"]
        assert bob.closed is None
        assert two.statistics()["dropped_forged"] == 2 * 5


@async_test
async def test_a_recorded_envelope_cannot_be_played_again(backend: Backend) -> None:
    """Neither at the node that heard it nor on another channel."""
    async with contextlib.AsyncExitStack() as stack:
        one, two = await stack.enter_async_context(backend.pools(secret=SECRET))
        channels = f"{backend.prefix}:{{n}}", backend.routed_channel("n", two)
        tape = await stack.enter_async_context(backend.listening(*channels))
        bob = await two.host("n", "bob")
        other = await two.host("other", "bob")
        await one.broadcast_message("n", "once")
        await one.send("n", "bob", "once")
        await bob.wait_sent(2)
        heard: list[tuple[str, bytes]] = []
        while len(heard) < 2:
            channel, payload = await tape.get()
            if b"once" in payload:
                heard.append((channel, payload))
        for channel, payload in heard:
            await backend.publish(channel, payload)
            await backend.publish(f"{backend.prefix}:{{other}}", payload)
        await eventually(lambda: two.statistics()["dropped_forged"] == 4)
        assert bob.sent == ["once", "once"]
        assert other.sent == []


@async_test
async def test_a_forged_takeover_closes_no_connection(backend: Backend) -> None:
    """Takeovers are told by a script, which has no secret: the registry is asked before acting."""
    async with backend.pools(1, secret=SECRET) as (one,):
        alice = await one.host("n", "alice")
        claim = str(claim_of(alice))
        forged = b"\xc1\x011 1 1 x 1\n" + envelope.pack((envelope.TAKEN, "alice", claim))
        await backend.publish(f"{backend.prefix}:{{n}}", forged)
        assert await one.broadcast_message("n", "still here") == 1
        assert await alice.wait_sent() == ["still here"]
        await asyncio.sleep(0.1)  # time in which the wrong thing, a close, would have come
        assert alice.closed is None
        assert await one.locate("n", "alice") is not None


OLD, NEW = "the old secret, long enough", "the new secret, long enough"


@pytest.mark.parametrize(
    ("some", "others"), [(OLD, [OLD, NEW]), ([OLD, NEW], [NEW, OLD]), ([NEW, OLD], NEW)]
)
@async_test
async def test_a_secret_is_brought_in_node_by_node(
    backend: Backend, some: str | list[str], others: str | list[str]
) -> None:
    """All learn the new one, then all seal with it, then all forget the old one."""
    async with (
        backend.pools(1, secret=some) as (one,),
        Pool(
            backend.redis(),
            node_id="node-2",
            prefix=backend.prefix,
            timing=one.timing,
            secret=others,
        ) as two,
    ):
        await one.host("n", "alice")
        await two.host("n", "bob")
        assert await one.send("n", "bob", "x", confirm=True) is SendResult.DELIVERED
        assert await two.send("n", "alice", "x", confirm=True) is SendResult.DELIVERED


@pytest.mark.parametrize("secret", ["", "short", []])
def test_bad_secrets_are_refused_at_the_door(secret: object) -> None:
    """Before anything is started."""
    with pytest.raises(ValueError, match="secret"):
        Publisher(secret=secret)  # type: ignore[arg-type]
