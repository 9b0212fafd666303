"""The client process: many WebSockets on one epoll, every message checked; its CPU is not counted.

Some servers wrap every message in the packets of Socket.IO, and ``serve`` in JSON for clients of
``cluster-pool.v1``: these speak both, too. Run as ``python -m tools.bench.clients GATE``.
"""

import json
import os
import select
import socket
import sys
import time
import zlib
from typing import Any

from tools.bench.payloads import DIGITS, ID_AT, SIZE, TO_ALL, member_id
from tools.contenders import engineio
from tools.harness import frames
from tools.harness.frames import END, masked, request
from tools.harness.obeying import answer

TOGETHER = 200
"""Handshakes under way at once."""
READ = 256 * 1024
TIMEOUT = 30.0
OFFER = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"
V1 = "Sec-WebSocket-Protocol: cluster-pool.v1"
CONTENT = b'"m":"'
"""Before the message in a frame of that protocol; the welcome has none."""
COMPRESSED = 0x40
TAIL = b"\x00\x00\xff\xff"
"""The end of a compressed message that is not sent (RFC 7692 section 7.2.2)."""


class Client:
    """One WebSocket, or one bare socket that carries the same frames."""

    __slots__ = (
        *("disordered", "early", "framed", "id", "inflate", "next", "packets", "rest", "socket"),
        "wrong",
    )

    def __init__(
        self, socket: socket.socket, id: str, *, packets: bool = False, framed: bool = False
    ) -> None:
        self.socket = socket
        self.id = id.encode()
        self.packets = packets
        self.framed = framed
        self.inflate: Any = None
        """Decompresses with one context for all messages; made for the first that needs it."""
        self.rest = b""
        self.expect(0)

    def finish_handshake(self) -> None:
        """Wait for the answer to a request; what comes behind it is for later."""
        data = b""
        while END not in data and (more := self.socket.recv(READ)):
            data += more
        head, end, self.rest = data.partition(END)
        if not (end and head.startswith(b"HTTP/1.1 101 ")):
            raise RuntimeError(f"no handshake: {data!r}")

    def inflated(self, message: bytes) -> bytes:
        """A compressed message as it was sent."""
        if self.inflate is None:
            self.inflate = zlib.decompressobj(wbits=-15)
        data: bytes = self.inflate.decompress(message + TAIL)
        return data

    def expect(self, first: int) -> None:
        """The next message is ``first``; forget what was wrong."""
        self.next = first
        self.early: set[int] = set()
        self.disordered = self.wrong = 0

    def check(self, number: int) -> None:
        """A message has come: in its turn, before it (out of order), or twice (wrong)."""
        if number == self.next:
            self.next += 1
            while self.early and self.next in self.early:
                self.early.remove(self.next)
                self.next += 1
        elif number > self.next and number not in self.early:
            self.early.add(number)
            self.disordered += 1
        else:
            self.wrong += 1


class Clients:
    """All clients of this process."""

    def __init__(self, gate: int) -> None:
        self._gate = gate
        self._poll = select.epoll()
        self._by_fd: dict[int, Client] = {}
        self._received = 0
        self._joined = 0
        self._gate_at = 0
        self._per_gate = 0
        self._stamps: list[int] | None = None
        self._now = 0
        self.closed = 0

    # -- connecting ------------------------------------------------------------------------

    def connect(
        self,
        host: str,
        port: int,
        path: str,
        count: int,
        first: int = 0,
        packets: bool = False,
        deflate: bool = False,
        framed: bool = False,
    ) -> None:
        """Open WebSockets ``first`` to ``first + count``; with no path, bare sockets.

        With ``packets`` they speak Socket.IO, and are in its main namespace at the end; with
        ``deflate`` they offer compression, with ``framed`` they speak ``cluster-pool.v1``.
        """
        offer = (*((OFFER,) if deflate else ()), *((V1,) if framed else ()))
        sign = "&" if "?" in path else "?"
        for at in range(first, first + count, TOGETHER):
            opening = []
            for index in range(at, min(at + TOGETHER, first + count)):
                link, id = socket.create_connection((host, port), TIMEOUT), member_id(index)
                if path:
                    link.sendall(request(f"{path}{sign}id={id}", *offer))
                opening.append(Client(link, id, packets=packets, framed=framed))
            for client in opening:
                if path:
                    client.finish_handshake()
                client.socket.setblocking(False)
                self._by_fd[client.socket.fileno()] = client
                self._poll.register(client.socket, select.EPOLLIN)
                if not packets:
                    self._read(client, client.rest)  # a ping may have come with the handshake
            if packets:
                self._join(opening)

    def _join(self, opening: list[Client]) -> None:
        """Wait until these have joined; what came with their handshakes is read first."""
        wanted, deadline = self._joined + len(opening), time.monotonic() + TIMEOUT
        for client in opening:
            self._read(client, client.rest)
        while self._joined < wanted:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{wanted - self._joined} clients could not join")
            self.receive(0.2)

    def _gone(self, client: Client) -> None:
        self._poll.unregister(client.socket)
        del self._by_fd[client.socket.fileno()]
        client.socket.close()
        self.closed += 1

    # -- receiving -------------------------------------------------------------------------

    def expect(self, per_gate: int, first: int, stamps: bool) -> None:
        """Count anew: numbers begin at ``first``; every ``per_gate`` messages the gate opens."""
        self._received, self._per_gate, self._gate_at = 0, per_gate, per_gate
        self._stamps = [] if stamps else None
        for client in self._by_fd.values():
            client.expect(first)

    def report(self, total: int, timeout: float) -> dict[str, Any]:
        """Receive until ``total`` messages have come, or too long."""
        deadline = time.monotonic() + timeout
        while self._received < total and time.monotonic() < deadline:
            self.receive(0.2)
        return {
            "received": self._received,
            "wrong": sum(client.wrong for client in self._by_fd.values()),
            "disordered": sum(client.disordered for client in self._by_fd.values()),
            "open": len(self._by_fd),
            "stamps": self._stamps,
        }

    def receive(self, timeout: float) -> None:
        """Read whatever is there, and answer pings."""
        for fd, _ in self._poll.poll(timeout, len(self._by_fd) or 1):
            client = self._by_fd[fd]
            try:
                data = client.socket.recv(READ)
            except BlockingIOError:
                continue
            except OSError:
                data = b""
            if not data:
                self._gone(client)
                continue
            if self._stamps is not None:
                self._now = time.monotonic_ns()
            self._read(client, client.rest + data if client.rest else data)
        if self._per_gate and self._received >= self._gate_at:
            self._gate_at += self._per_gate
            os.write(self._gate, b".")

    def _read(self, client: Client, data: bytes) -> None:
        start = end = 0
        for opcode, message, end in frames.read(data):
            if opcode in (frames.TEXT, frames.BINARY):
                if data[start] & COMPRESSED:
                    message = client.inflated(message)
                if client.packets:
                    self._packet(client, message)
                elif client.framed:
                    self._framed(client, message)
                else:
                    self._message(client, message)
            elif opcode == frames.PING:
                client.socket.send(masked(frames.PONG, message))
            elif opcode == frames.CLOSE:
                client.socket.send(masked(frames.CLOSE))
            start = end
        client.rest = data[end:]

    def _packet(self, client: Client, packet: bytes) -> None:
        asked = engineio.read(packet)
        if asked.reply:
            client.socket.send(masked(frames.TEXT, asked.reply))
        if asked.message is not None:
            self._message(client, asked.message)
        self._joined += asked.joined

    def _framed(self, client: Client, frame: bytes) -> None:
        at = frame.find(CONTENT) + len(CONTENT)
        if at >= len(CONTENT):
            self._message(client, frame[at : at + SIZE])

    def _message(self, client: Client, message: bytes) -> None:
        self._received += 1
        for_me = message[ID_AT : ID_AT + 1] == TO_ALL or message.startswith(client.id, ID_AT)
        if for_me:
            client.check(int(message[:DIGITS]))
        else:
            client.wrong += 1
        if self._stamps is not None:
            self._stamps.append(self._now)

    # -- commands --------------------------------------------------------------------------

    def obey(self) -> None:
        """Do what is asked until standard input ends, and receive meanwhile."""
        commands = select.epoll()
        commands.register(0, select.EPOLLIN)
        commands.register(self._poll.fileno(), select.EPOLLIN)
        pending = b""
        while True:
            ready = {fd for fd, _ in commands.poll()}
            if self._poll.fileno() in ready:
                self.receive(0)
            if 0 in ready:
                data = os.read(0, READ)
                if not data:
                    return
                *lines, pending = (pending + data).split(b"\n")
                for line in lines:
                    fields = json.loads(line)
                    answer(getattr(self, fields.pop("do"))(**fields))


if __name__ == "__main__":
    clients = Clients(int(sys.argv[1]))
    answer()
    clients.obey()
