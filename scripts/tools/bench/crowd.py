"""A crowd of WebSockets that come as fast as they can and then say nothing.

A handshake costs this program a fraction of what it costs any server. Run as
``python -m tools.bench.crowd PORT PATH COUNT``; says how many seconds it took until all were in.
"""

import selectors
import socket
import sys
import time

from tools.bench.children import say
from tools.bench.payloads import member_id

TOGETHER = 200
"""Handshakes under way at once."""
REQUEST = (
    "GET {path}?id={id} HTTP/1.1\r\nHost: here\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


def main(port: int, path: str, count: int) -> None:
    """Come, say so, and stay until standard input ends."""
    requests = [REQUEST.format(path=path, id=member_id(at)).encode() for at in range(count)]
    opening = selectors.DefaultSelector()
    crowd: list[socket.socket] = []
    answered = 0
    begun = time.monotonic()
    while answered < count:
        while len(crowd) < count and len(crowd) - answered < TOGETHER:
            link = socket.create_connection(("127.0.0.1", port))
            link.send(requests[len(crowd)])
            opening.register(link, selectors.EVENT_READ, link)
            crowd.append(link)
        for key, _ in opening.select():
            answer = key.data.recv(4096)
            if not answer.startswith(b"HTTP/1.1 101 "):
                raise RuntimeError(f"no handshake: {answer!r}")
            opening.unregister(key.data)
            answered += 1
    say(seconds=time.monotonic() - begun)
    sys.stdin.read()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
