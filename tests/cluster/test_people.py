"""Connections of users: each is also a member among those of its user, as long as it is at home."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import pytest

from cluster_pool import (
    BackplaneUnavailableError,
    Connection,
    ConnectionClosedError,
    Delivery,
    Identity,
    IdTakenError,
    InvalidIdError,
    InvalidNamespaceError,
    InvalidValueError,
    Limits,
    MembershipLimitError,
    NodeDrainingError,
    NodeState,
    NotPermittedError,
    Publisher,
)
from cluster_pool.testing import FAST, FakeWebSocket
from tests.cluster.test_joins import ids
from tests.clusters import Backend, Pool, abandon, connection_of, vanish
from tests.servers import RedisServer
from tests.support import async_test, eventually
from tools.harness.internals import is_whole

USERS = ("42", "a:b/c d", "~", "é" * 125, "x" * 250)


async def tabs(pool: Pool, user: str) -> int:
    """The number of connections of a user, as the registry has them."""
    return (await pool.online(user))[user]


def has(pool: Pool, user: str, number: int) -> Callable[[], Any]:
    """A condition: a user has so many connections."""

    async def met() -> bool:
        return await tabs(pool, user) == number

    return met


@async_test
async def test_connections_of_a_user_are_known_in_the_whole_cluster(backend: Backend) -> None:
    """Also two under the same home id on one node; others see nothing of it."""
    async with backend.pools() as (one, two):
        first = await one.host("room:1", "tab", user="42")
        second = await one.host("room:2", "tab", user="42")
        third = await two.host("room:1", "other", user="42")
        await two.host("room:1", "guest")
        assert await tabs(one, "42") == await tabs(two, "42") == 3
        assert await tabs(two, "43") == 0
        for tab in (first, second, third):
            assert connection_of(tab).user == "42"
        assert connection_of(first).namespaces == ("room:1",)
        assert await two.namespaces() == ["room:1", "room:2"]
        for pool in (one, two):
            assert pool.statistics()["connections"] == 2
        assert one.statistics()["namespaces"] == 2
        assert two.statistics()["namespaces"] == 1
        assert await ids(one, "room:1") == {"tab", "other", "guest"}
        await one.remove_connection(connection_of(second))
        assert await tabs(two, "42") == 2
        await connection_of(first).close()
        await two.close("room:1", "other")
        await eventually(has(one, "42", 0))


@async_test
async def test_a_user_may_have_any_id_of_250_bytes(backend: Backend) -> None:
    """Longer ones, and those that no id may be, are refused before anything is claimed."""
    async with backend.pools() as (one, two):
        for number, user in enumerate(USERS):
            await one.host("room", f"tab{number}", user=user)
        for user in USERS:
            assert await tabs(two, user) == 1
        for wrong in ("", "x" * 251, "é" * 126, "a{b", "a\n", 7):
            with pytest.raises(InvalidIdError, match="user"):
                Connection("a", "n", FakeWebSocket(), user=wrong)  # type: ignore[arg-type]
            with pytest.raises(InvalidIdError):
                async with one.accept(FakeWebSocket(), namespace="n", user=wrong):  # type: ignore[arg-type]
                    pass
        assert one.statistics()["connections"] == len(USERS)


@async_test
async def test_a_user_is_named_by_the_call_or_by_the_identity(backend: Backend) -> None:
    """If by both, it must be the same."""
    async with backend.pools(1) as (one,):
        alice = Identity(user="42", namespace="app")
        async with (
            one.accept(FakeWebSocket(), namespace="n", user="7") as named,
            one.accept(FakeWebSocket(), identity=alice) as known,
            one.accept(FakeWebSocket(), identity=alice, user="42") as both,
            one.accept(FakeWebSocket(), namespace="n") as guest,
        ):
            users = [one.user for one in (named, known, both, guest)]
            assert users == ["7", "42", "42", None]
            assert guest.identity is None
            assert (await tabs(one, "7"), await tabs(one, "42")) == (1, 2)
            await named.join("anywhere")
            for wrong in (alice, Identity(namespace="app")):
                with pytest.raises(NotPermittedError):
                    async with one.accept(FakeWebSocket(), identity=wrong, user="43"):
                        pass
        assert one.statistics()["not_permitted"] == 2
        assert (await tabs(one, "7"), await tabs(one, "42")) == (0, 0)


@async_test
async def test_a_person_counts_in_no_limit_of_namespaces(backend: Backend) -> None:
    """Neither in that of a connection nor in that of a node."""
    limits = Limits(connection_namespaces=2, node_namespaces=2)
    async with backend.pools(1, limits=limits) as (one,):
        for number in range(4):
            await one.host("app", str(number), user=f"user {number}")
        alice = connection_of(await one.host("app", "alice", user="alice"))
        await alice.join("room")
        with pytest.raises(MembershipLimitError) as many:
            await connection_of(await one.host("app", "bob", user="bob")).join("hall")
        assert many.value.limit == "node_namespaces"
        with pytest.raises(MembershipLimitError) as full:
            await alice.join("hall")
        assert full.value.limit == "connection_namespaces"


@async_test
async def test_a_refused_home_leaves_nothing_of_its_user(backend: Backend) -> None:
    """The same connection may come again at once, under another rule."""
    async with backend.pools(limits=Limits(namespace_members=2)) as (one, two):
        await one.host("room", "alice", user="42")
        await one.host("room", "guest")
        newcomer = Connection("alice", "room", FakeWebSocket(), user="43")
        with pytest.raises(IdTakenError):
            await two.new_connection(newcomer, on_conflict="reject", timeout=0.5)
        await eventually(has(one, "43", 0))
        with pytest.raises(MembershipLimitError):
            await two.host("room", "bob", user="43")
        with pytest.raises(IdTakenError):
            await two.new_connection(newcomer, on_conflict="reject", timeout=0.5)
        await two.new_connection(newcomer)
        await eventually(has(one, "43", 1))
        await eventually(has(one, "42", 0))
        assert newcomer.namespaces == ("room",)


@async_test
async def test_a_drain_that_begins_between_the_claims_refuses_the_newcomer() -> None:
    """The claim for its user is released."""
    async with Backend(None).pools(1) as (one,):
        ownership = one._parts.ownership
        claim = ownership.claim

        async def drained(membership: Any, **options: Any) -> None:
            await claim(membership, **options)
            one._parts.life.state = NodeState.DRAINING

        ownership.claim = drained  # type: ignore[method-assign]
        with pytest.raises(NodeDrainingError):
            await one.host("room", "alice", user="42")
        one._parts.life.state = NodeState.ACTIVE
        await eventually(has(one, "42", 0))
        assert await one.namespaces() == []


@async_test
async def test_a_home_that_is_taken_over_takes_its_user_with_it(backend: Backend) -> None:
    """It is one takeover, and no handler hears of a namespace that no call names."""
    async with backend.pools() as (one, two):
        alice = await one.host("room", "alice", user="42")
        connection_of(alice).on("left", lambda *left: pytest.fail(str(left)))
        await two.host("room", "alice", user="43")
        assert await alice.wait_closed() == (4409, "taken over")
        await eventually(has(two, "42", 0))
        assert await tabs(one, "43") == 1
        assert one.statistics()["taken_over"] == 1
        assert one.statistics()["namespaces"] == 0


@async_test
async def test_a_node_that_is_killed_takes_its_users_with_it(backend: Backend) -> None:
    """They are gone with its lease, and reaped; no hook hears of their namespaces."""
    async with backend.pools(1) as (one,):
        emptied: list[str] = []
        one.on("empty", emptied.append)
        lost = Pool(backend.redis(), node_id="lost", prefix=backend.prefix, timing=one.timing)
        await lost.start()
        await lost.host("room", "alice", user="42")
        await one.host("room", "bob", user="42")
        await lost.host("hall", "carol", user="43")
        assert (await tabs(one, "42"), await tabs(one, "43")) == (2, 1)
        await vanish(lost)
        told = await one.send_user("42", "still there?", confirm=True, timeout=0.5)
        assert (told.delivered, told.undelivered + told.timed_out) == (1, 1)
        assert not await one.send_user("43", "still there?", confirm=True, timeout=0.5)
        await eventually(has(one, "42", 1), 20)
        assert await tabs(one, "43") == 0
        await eventually(lambda: not backend.keys_of("members")[2:], 20)
        assert sorted(key.split("}")[0] for key in backend.keys_of("members")) == [
            f"{backend.prefix}:{{room",
            f"{backend.prefix}:{{~user:42",
        ]
        await eventually(lambda: emptied == ["hall"])
        await eventually(lambda: not backend.keys_of("dead"))
        assert await one.namespaces() == ["room"]
        await abandon(lost)


@async_test
async def test_users_are_registered_again_after_a_flushall(backend: Backend) -> None:
    """As every membership is."""
    async with backend.pools() as (one, two):
        await one.host("room", "alice", user="42")
        await two.host("room", "bob", user="42")
        async with backend.client() as client:
            for key in list(backend.keys()):
                await client.delete(key)
        await eventually(lambda: one.counters.rejoins and two.counters.rejoins, 20)
        await eventually(lambda: one.ready and two.ready, 20)
        assert await tabs(one, "42") == await tabs(two, "42") == 2


@async_test
async def test_a_newcomer_that_is_given_up_leaves_nothing_of_its_user(backend: Backend) -> None:
    """Cancelled, or closed, during either claim."""
    async with backend.pools(1) as (one,):
        pauses = (0, 0, 0.001, 0.002, 0.003, 0.005, 0.008, 0.013)
        for number, pause in enumerate(pauses):
            connection = Connection(f"tab{number}", "room", FakeWebSocket(), user="42")
            joining = asyncio.create_task(one.new_connection(connection))
            await asyncio.sleep(pause)
            if number % 2:
                joining.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await joining
                await connection.close()
            else:
                await connection.close()
                with contextlib.suppress(ConnectionClosedError):
                    await joining
        await eventually(lambda: not one._parts.table.memberships())
        await eventually(has(one, "42", 0))
        assert await one.namespaces() == []
        await eventually(lambda: backend.keys_of("members") == [])


@async_test
async def test_without_redis_a_newcomer_is_refused_in_time_and_leaves_nothing(
    own_server: RedisServer,
) -> None:
    """A claim that may have been made is released as soon as Redis is back."""
    backend = Backend(own_server)
    async with (
        backend.pools(1) as (one,),
        own_server.network() as proxy,
        Pool(proxy.url, node_id="far", timing=FAST) as far,
    ):
        await far.host("room", "alice", user="42")
        await proxy.refuse()
        await eventually(lambda: far.trouble)
        connection = Connection("bob", "room", FakeWebSocket(), user="43")
        calls = far.send_user("42", "x", timeout=0.3), far.online("42", timeout=0.3)
        for call in (*calls, far.close_user("42", timeout=0.3)):
            with pytest.raises(BackplaneUnavailableError):
                await call
        with pytest.raises(BackplaneUnavailableError):
            await far.new_connection(connection, timeout=0.3)
        assert far.statistics()["connections"] == 1
        await proxy.accept()
        await eventually(lambda: is_whole(far), 30)
        await eventually(has(one, "42", 1), 30)
        assert await tabs(one, "43") == 0
        await far.new_connection(connection)
        assert await tabs(one, "43") == 1


@async_test
async def test_no_call_names_a_namespace_of_the_library(backend: Backend) -> None:
    """The error says why; nothing is sent."""
    async with backend.pools(1) as (one,), backend.publisher() as publisher:
        alice = connection_of(await one.host("room", "alice", user="42"))
        for name in ("~", "~user:42", "~else"):
            for caller in (one, publisher):
                for call in _calls(caller, name):
                    with pytest.raises(InvalidNamespaceError, match="begins with '~'"):
                        await call
            for call in (alice.join(name), alice.leave(name)):
                with pytest.raises(InvalidNamespaceError):
                    await call
            for look in (one.get_connection, one.local.get_connection):
                with pytest.raises(InvalidNamespaceError):
                    look(name, "alice")
            for look_at in (one.has_namespace, one.local.has_namespace, _made, _known):
                with pytest.raises(InvalidNamespaceError):
                    look_at(name)
            with pytest.raises(InvalidNamespaceError):
                async with one.accept(FakeWebSocket(), namespace=name):
                    pass
        assert await tabs(one, "42") == 1


def _made(name: str) -> Connection:
    return Connection("a", name, FakeWebSocket())


def _known(name: str) -> Identity:
    return Identity(namespaces=["room:*", name])


def _calls(caller: Pool | Publisher, name: str) -> list[Any]:
    """Every call that names a namespace."""

    async def listed() -> None:
        async for _ in caller.members(name):
            pass

    async def watched() -> None:
        async for _ in caller.watch(name):
            pass

    join = super(Pool, caller).join if isinstance(caller, Pool) else caller.join
    return [
        *(caller.send(name, "a", "x"), caller.send_json(name, "a", "x")),
        *(caller.send_then_close(name, "a", "x"), caller.send_json_then_close(name, "a", "x")),
        *(caller.broadcast_message(name, "x"), caller.broadcast_json_message(name, "x")),
        *(caller.close(name, "a"), caller.close_all(name), caller.remove_all(name)),
        *(join(name, "a", "room"), join("room", "a", name)),
        *(caller.leave(name, "a", "room"), caller.leave("room", "a", name)),
        *(caller.count(name), caller.locate(name, "a"), listed(), watched()),
    ]


@async_test
async def test_a_message_for_a_user_reaches_every_connection(backend: Backend) -> None:
    """From any node and from a publisher; the result counts connections, and others get nothing."""
    async with backend.pools() as (one, two), backend.publisher() as publisher:
        hers = [
            await one.host("room:1", "tab", user="42"),
            await one.host("room:2", "tab", user="42"),
            await two.host("room:1", "other", user="42"),
        ]
        other = await two.host("room:1", "his", user="43")
        for at, sender in enumerate((one, two, publisher)):
            told = await sender.send_user("42", str(at), confirm=True)
            assert told == Delivery(delivered=3)
        assert await publisher.send_user("42", b"3") == Delivery(routed=3)
        for tab in hers:
            assert await tab.wait_sent(4) == ["0", "1", "2", b"3"]
        await one.remove_connection(connection_of(hers[0]))
        told = await one.send_user("42", "4")
        assert (told.delivered + told.routed, bool(told)) == (2, True)
        for tab in hers[1:]:
            assert (await tab.wait_sent(5))[-1] == "4"
        assert await publisher.send_user("44", "nobody", confirm=True) == Delivery()
        assert (hers[0].sent[4:], other.sent) == ([], [])


@async_test
async def test_messages_for_a_user_keep_their_order_and_come_ahead_of_a_close(
    backend: Backend,
) -> None:
    """Those that are awaited one after another, whether or not they are confirmed."""
    async with backend.pools() as (one, two), backend.publisher() as publisher:
        hers = [await one.host("n", "a", user="42"), await two.host("n", "b", user="42")]
        his = await two.host("n", "c", user="43")
        for sender in (publisher, one):
            for number in range(20):
                assert await sender.send_user("42", str(number), confirm=number % 3 == 0)
            for tab in hers:
                assert (await tab.wait_sent(20))[:20] == [str(number) for number in range(20)]
                del tab.sent[:]
        assert await one.send_user("42", "bye")
        assert await one.close_user("42", 4401, "signed out") == 2
        for tab in hers:
            assert await tab.wait_closed() == (4401, "signed out")
            assert tab.sent == ["bye"]
        await eventually(has(two, "42", 0))
        await eventually(lambda: _told_nobody(publisher))
        assert (his.closed, his.sent) == (None, [])


async def _told_nobody(publisher: Publisher) -> bool:
    return await publisher.close_user("42") == 0


@async_test
async def test_online_counts_the_connections_of_many_users(backend: Backend) -> None:
    """In the order of the call, each once; also of one user, and of more than a page."""
    async with backend.pools() as (one, two), backend.publisher() as publisher:
        for number, pool in enumerate((one, two, one)):
            await pool.host(f"room:{number}", "tab", user="42")
        await two.host("room:0", "other", user="a:b/c d")
        for caller in (one, publisher):
            counts = await caller.online(["43", "42", "a:b/c d", "43"])
            assert list(counts.items()) == [("43", 0), ("42", 3), ("a:b/c d", 1)]
            assert await caller.online("42") == {"42": 3}
            assert await caller.online([]) == {}
            many = await caller.online(str(number) for number in range(1200))
            assert len(many) == 1200
            assert {user for user, count in many.items() if count} == {"42"}


@async_test
async def test_online_writes_all_questions_at_once() -> None:
    """One round trip, with the leases behind the counts."""
    async with Backend(None).pools(1) as (one,):
        commands: Any = one._parts.backplane.shard.commands
        send, written = commands.connection.send_packed_command, list[int]()

        async def counted(packed: list[bytes], **options: Any) -> None:
            written.append(len(packed))
            await send(packed, **options)

        commands.connection.send_packed_command = counted
        await one.online([str(number) for number in range(400)])
        assert max(written) >= 401


@async_test
async def test_users_and_messages_are_checked_before_anything_is_sent(backend: Backend) -> None:
    """As those of every call."""
    async with backend.pools(1) as (one,):
        alice = await one.host("room", "alice", user="42")
        wrong: list[Any] = ["", "x" * 251, "a{b", 7, None]
        for user in wrong:
            calls = one.send_user(user, "x"), one.close_user(user), one.online([user])
            for call in calls:
                with pytest.raises(InvalidIdError, match="user"):
                    await call
        more: list[Any] = [
            *(one.online(7), one.online(None)),  # type: ignore[arg-type]
            *(one.send_user("42", 7), one.send_user("42", "\ud800")),  # type: ignore[arg-type]
            one.send_user("42", "x" * (one.limits.message_bytes + 1)),
            *(one.close_user("42", 1005), one.close_user("42", 1000, "x" * 124)),
            *(one.send_user("42", "x", timeout=0), one.close_user("42", timeout=-1)),
        ]
        for call in more:
            with pytest.raises(InvalidValueError):
                await call
        assert (alice.sent, alice.closed) == ([], None)


@async_test
async def test_messages_for_users_are_sealed_in_a_cluster_with_a_secret(backend: Backend) -> None:
    """Those of a stranger, who does not know it, are refused."""
    async with (
        backend.pools(secret="s" * 16) as (one, two),
        backend.publisher(timeout=0.5) as stranger,
    ):
        alice = await one.host("app", "alice", user="42")
        assert await two.send_user("42", "hello", confirm=True) == Delivery(delivered=1)
        assert await stranger.send_user("42", "forged", confirm=True) == Delivery(timed_out=1)
        await stranger.close_user("42")
        await eventually(lambda: one.statistics()["dropped_forged"] == 2)
        assert (alice.sent, alice.closed) == (["hello"], None)
        await two.close_user("42")
        await alice.wait_closed()


@async_test
async def test_a_raw_message_on_the_channel_of_a_user_reaches_all_of_them(
    backend: Backend,
) -> None:
    """As on the channel of any namespace."""
    async with backend.pools() as (one, two):
        hers = [await one.host("n", "a", user="42"), await two.host("n", "b", user="42")]
        await backend.publish(f"{backend.prefix}:{{~user:42}}", "raw")
        for tab in hers:
            assert await tab.wait_sent() == ["raw"]


@async_test
async def test_a_message_that_only_some_connections_have_got_may_have_been_executed() -> None:
    """The error says so, although Redis has not executed the rest."""
    async with Backend(None).pools(1) as (one,):
        for id in ("a", "b", "c"):
            await one.host("n", id, user="42")
        sending: Any = one._parts.people._sending
        send, lacking = sending.send_checked, [False, True, True]

        def failing(*arguments: Any) -> Any:
            if lacking.pop():
                raise BackplaneUnavailableError("away")
            return send(*arguments)

        sending.send_checked = failing
        with pytest.raises(BackplaneUnavailableError, match="not sent to all: away") as partly:
            await one.send_user("42", "x")
        assert partly.value.maybe_executed
        lacking += [True] * 3
        with pytest.raises(BackplaneUnavailableError, match=r"^away$") as not_at_all:
            await one.send_user("42", "x")
        assert not not_at_all.value.maybe_executed


@async_test
async def test_a_user_with_more_connections_than_a_page_gets_each_message_once() -> None:
    """Page after page."""
    async with Backend(None).pools() as (one, two):
        joins = [
            (one if number % 2 else two).host("n", str(number), user="42") for number in range(1100)
        ]
        hers = await asyncio.gather(*joins)
        told = await one.send_user("42", "x", confirm=True, timeout=10)
        assert told == Delivery(delivered=1100)
        await eventually(lambda: all(tab.sent == ["x"] for tab in hers))


@async_test
async def test_a_broadcast_excludes_every_connection_of_some_users(backend: Backend) -> None:
    """Text and binary, with ids besides, in order with the others; guests have no user."""
    async with backend.pools() as (one, two), backend.publisher() as publisher:
        hers = [await one.host("room", "a", user="42"), await two.host("room", "b", user="42")]
        his = await two.host("room", "c", user="a:b/c d")
        guest = await one.host("room", "guest")
        await connection_of(hers[0]).join("hall")
        for sender in (one, publisher):
            await sender.broadcast_message("room", "all")
            assert await sender.broadcast_message("room", "others", exclude_users=["42"]) == 2
            await sender.broadcast_json_message("room", 1, "guest", exclude_users="42")
            await sender.broadcast_message("room", b"\xff", exclude_users={"42", "a:b/c d", "x"})
            await sender.broadcast_message("hall", "nobody", exclude_users=["42"])
            await sender.broadcast_message("room", "end")
        for tab in hers:
            assert await tab.wait_sent(4) == ["all", "end"] * 2
        assert await his.wait_sent(8) == ["all", "others", "1", "end"] * 2
        assert await guest.wait_sent(8) == ["all", "others", b"\xff", "end"] * 2
        assert one.statistics()["dropped_garbage"] == two.statistics()["dropped_garbage"] == 0
        for wrong in ("", "x" * 251):
            with pytest.raises(InvalidIdError):
                await one.broadcast_message("room", "x", exclude_users=[wrong])


@async_test
async def test_a_sealed_broadcast_excludes_users_too(backend: Backend) -> None:
    """In a cluster with a secret."""
    async with backend.pools(secret="s" * 16) as (one, two):
        hers, his = await one.host("n", "a", user="42"), await one.host("n", "b", user="43")
        await two.broadcast_message("n", "others", exclude_users=["42"])
        await two.broadcast_message("n", "all")
        assert await his.wait_sent(2) == ["others", "all"]
        assert await hers.wait_sent() == ["all"]
