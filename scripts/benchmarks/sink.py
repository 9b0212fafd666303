"""The clients, in a process of their own: they connect, count what arrives, and time it if asked.

Talks in JSON lines on its standard streams. Its CPU time is nobody's cost.
"""

import json
import os
import select
import socket
import sys
import time

KEY = "dGhlIHNhbXBsZSBub25jZQ=="


def connect(port: int, path: str) -> socket.socket:
    """A WebSocket: the handshake, then whatever the server sends."""
    sock = socket.create_connection(("127.0.0.1", port))
    sock.sendall(
        f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n".encode()
    )
    head = b""
    while b"\r\n\r\n" not in head:
        head += sock.recv(4096)
    assert head.startswith(b"HTTP/1.1 101"), head
    sock.setblocking(False)
    return sock


def main() -> None:
    """Obey: connect, raw (accept plain connections), read, quit."""
    received = 0
    delays: list[int] = []
    sockets: list[socket.socket] = []
    poll = select.epoll()
    poll.register(0, select.EPOLLIN)
    by_fd: dict[int, socket.socket] = {}
    timing = False
    pending = b""
    while True:
        for fd, _ in poll.poll():
            if fd != 0:
                data = by_fd[fd].recv(1 << 20)
                now = time.monotonic_ns()
                received += len(data)
                if not data:
                    poll.unregister(fd)
                elif timing:
                    delays.append(now - int(data[4:24]))
                continue
            chunk = os.read(0, 1 << 16)
            if not chunk:
                return
            pending += chunk
            while b"\n" in pending:
                line, _, pending = pending.partition(b"\n")
                order = json.loads(line)
                answer: dict[str, object] = {}
                if order["do"] == "connect":
                    for number in range(order["first"], order["first"] + order["count"]):
                        path = f"/ws/{order['namespace']}?id={order['prefix']}{number}"
                        sock = connect(order["port"], path)
                        sockets.append(sock)
                        by_fd[sock.fileno()] = sock
                        poll.register(sock.fileno(), select.EPOLLIN)
                elif order["do"] == "raw":
                    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
                    print(json.dumps({"port": listener.getsockname()[1]}), flush=True)
                    for _ in range(order["count"]):
                        sock, _ = listener.accept()
                        sock.setblocking(False)
                        sockets.append(sock)
                        by_fd[sock.fileno()] = sock
                        poll.register(sock.fileno(), select.EPOLLIN)
                    listener.close()
                elif order["do"] == "read":
                    answer = {"bytes": received, "delays": delays}
                elif order["do"] == "time":
                    timing, delays = True, []
                print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    sys.exit(main())
