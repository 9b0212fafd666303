"""Clients that come back at once, and what they and a sender know of each other."""

from cluster_pool import ClusterPool, Publisher
from tests.servers import RedisServer
from tests.support import async_test, eventually
from tools.harness.comers import Comers, Mail
from tools.harness.internals import NodeServer
from tools.harness.proxy import Proxy

MEMBERS = [("room", f"c{at}") for at in range(5)]


@async_test
async def test_clients_come_back_and_count(servers: dict[str, RedisServer]) -> None:
    """Each close has its code and its time, and so has each return; the first coming is none."""
    url, prefix = servers["valkey"].url, "cluster_pool:comers"
    async with ClusterPool(url, prefix=prefix) as pool:
        node = NodeServer(pool, port=0)
        await node.start()
        comers = Comers()
        await comers.come(node.port, MEMBERS)
        assert (comers.back, comers.closed, await comers.away()) == ([], [], 0)
        await pool.close_all("room", 1012)
        await eventually(lambda: len(comers.back) == len(MEMBERS))
        assert comers.codes == {1012: len(MEMBERS)}
        assert max(comers.closed) <= max(comers.back)
        await comers.leave()
        await node.stop()


@async_test
async def test_mail_knows_what_was_delivered_and_who_heard_it(
    servers: dict[str, RedisServer],
) -> None:
    """A message answered DELIVERED is lost until one of the clients has it."""
    url, prefix = servers["valkey"].url, "cluster_pool:mail"
    async with ClusterPool(url, prefix=prefix) as pool, Publisher(url, prefix=prefix) as publisher:
        node = NodeServer(pool, port=0)
        await node.start()
        comers = Comers()
        await comers.come(node.port, MEMBERS)
        async with Mail(publisher, MEMBERS, 0.001) as mail:
            await eventually(lambda: len(mail.delivered) > 20)
        await eventually(lambda: not mail.lost(comers.heard))
        assert mail.lost({}) == mail.delivered
        assert mail.failed == []
        await comers.leave()
        await node.stop()


@async_test
async def test_clients_without_a_network_come_back_elsewhere(
    servers: dict[str, RedisServer],
) -> None:
    """Their former sockets stay open and say nothing; the others stay where they are."""
    url, prefix = servers["valkey"].url, "cluster_pool:abandoned"
    async with ClusterPool(url, prefix=prefix) as pool:
        node = NodeServer(pool, port=0)
        await node.start()
        comers = Comers()
        async with Proxy(("127.0.0.1", node.port)) as way:
            await comers.come(way.port, MEMBERS)
            way.strand()
            await comers.abandon(MEMBERS[:2], [node.port])
            await eventually(lambda: len(comers.back) == 2)
            assert await comers.away() == 0
            assert (way.open_links, comers.closed) == (len(MEMBERS), [])
        await comers.leave()
        await node.stop()
