"""The demo's nodes send on behalf of a client, and report the result to it."""

import json

from websockets.asyncio.client import connect

from cluster_pool.cli.demo_app import handler
from tests.server.running import node, url
from tests.servers import RedisServer
from tests.support import async_test


@async_test
async def test_client_has_its_node_send_and_broadcast(own_server: RedisServer) -> None:
    """The message arrives at the other client, the result at the requesting one."""
    async with (
        node(own_server, app=handler) as (_, server),
        connect(url(server, "asks")) as asks,
        connect(url(server, "other")) as other,
    ):
        await asks.send(json.dumps({"send": "other", "text": "hi"}))
        assert await other.recv() == "hi"
        assert json.loads(await asks.recv()) == {"result": "delivered"}
        await asks.send(json.dumps({"broadcast": "all"}))
        assert await other.recv() == "all"
        heard = {await asks.recv(), await asks.recv()} - {"all"}
        assert [json.loads(text) for text in heard] == [{"result": 1}]
