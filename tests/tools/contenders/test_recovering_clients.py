"""Clients of Socket.IO's connection state recovery, before a server that speaks its protocol."""

import json

from websockets.asyncio.server import ServerConnection, serve

from tests.support import async_test, eventually
from tools.contenders.recovering_clients import Recoverers
from tools.harness.ports import HOST

MEMBER = ("room-0", "a")


@async_test
async def test_a_session_is_recovered_with_what_was_missed_ahead() -> None:
    """The client names its session and its last offset; a session that is a new one is a loss."""
    asked: list[str] = []
    sessions = iter(["one", "one", "two"])
    early = iter([[], ["2", '42["message","2 b 2","7-0"]'], []])
    sockets: list[ServerConnection] = []

    async def handle(websocket: ServerConnection) -> None:
        await websocket.send('0{"sid":"x"}')
        asked.append(str(await websocket.recv()))
        for packet in next(early):
            await websocket.send(packet)
            if packet == "2":
                assert await websocket.recv() == "3"
        await websocket.send("40" + json.dumps({"sid": "y", "pid": next(sessions)}))
        sockets.append(websocket)
        await websocket.wait_closed()

    async with serve(handle, HOST, 0, compression=None) as server:
        clients = Recoverers()
        await clients.come(next(iter(server.sockets)).getsockname()[1], [MEMBER])
        await sockets[0].send('42["message","1 b 1","5-0"]')
        await eventually(lambda: clients._numbers[MEMBER].got == 1)
        await sockets[0].close()
        await eventually(lambda: clients.words == {"True": 1})
        assert clients._numbers[MEMBER].got == 2
        await sockets[1].close()
        await eventually(lambda: clients.words == {"True": 1, "False": 1})
        await clients.leave()
    assert [packet[:2] for packet in asked] == ["40"] * 3
    assert asked[0] == "40"
    assert [json.loads(packet[2:]) for packet in asked[1:]] == [
        {"pid": "one", "offset": "5-0"},
        {"pid": "one", "offset": "7-0"},
    ]
