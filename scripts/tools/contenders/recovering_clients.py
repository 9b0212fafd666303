"""Clients of Socket.IO's connection state recovery, as :mod:`tools.harness.movers`.

A client names its private session and the offset of the last message that it has, and is in the
same session then, or in a new one (https://socket.io/docs/v4/socket-io-protocol, revision 5, with
the additions of ``connectionStateRecovery``). Run as a program of its own.
"""

import asyncio
import contextlib
import json

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from tools.contenders import engineio
from tools.harness.comers import Member, be_there
from tools.harness.internals import loop_factory
from tools.harness.movers import Movers
from tools.harness.telling import WORD

PING, PONG = "2", "3"


class Recoverers(Movers):
    """The same commands; each client is told at once whether it is in its former session."""

    def __init__(self) -> None:
        super().__init__()
        self._sessions: dict[Member, dict[str, str]] = {}
        self._answers: set[asyncio.Task[None]] = set()

    def _path(self, member: Member) -> str:
        room, id = member
        return f"{engineio.PATH}&room={room}&id={id}"

    async def _greet(self, websocket: ClientConnection, member: Member) -> None:
        await websocket.recv()  # the session of the transport
        session = self._sessions.get(member, {})
        await websocket.send("40" + (json.dumps(session) if session else ""))
        early = []  # what was missed comes before the answer
        while not (packet := str(await websocket.recv())).startswith("40"):
            if packet == PING:
                await websocket.send(PONG)
            else:
                early.append(packet)
        found = json.loads(packet.removeprefix("40"))["pid"]
        self._recovered(member, found == session.get("pid") if session else None)
        if found != session.get("pid"):
            self._sessions[member] = {"pid": found}
        for packet in early:
            self._hear(member, packet)

    def _recovered(self, member: Member, recovered: bool | None) -> None:
        super()._hear(member, f"{WORD}{recovered}")

    def _opened(self, member: Member, began: float) -> None:
        """It has been told already."""

    def _hear(self, member: Member, text: str) -> None:
        if text == PING:
            task = asyncio.create_task(_pong(self._open[member]))
            self._answers.add(task)
            task.add_done_callback(self._answers.discard)
        if text.startswith("42"):
            _, message, offset = json.loads(text.removeprefix("42"))
            self._sessions[member]["offset"] = offset
            super()._hear(member, message)


async def _pong(websocket: ClientConnection) -> None:
    with contextlib.suppress(ConnectionClosed):
        await websocket.send(PONG)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(be_there(Recoverers()))
