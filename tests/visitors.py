"""A program: a crowd of WebSocket clients that come as fast as they can, and go all at once.

Run as ``python -m tests.visitors PORT NAMESPACE COUNT``. Says ``in`` when all are members; it
ends, and every socket with it, when its input does.
"""

import resource
import selectors
import socket
import sys

TOGETHER = 500
"""Handshakes under way at once."""
REQUEST = (
    "GET /ws/{namespace}?id={id} HTTP/1.1\r\nHost: here\r\nUpgrade: websocket\r\n"
    "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


def allow_descriptors(count: int) -> None:
    """Raise the soft limit to ``count`` if it is lower."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))


def main(port: int, namespace: str, count: int) -> None:
    """Come, wait, go."""
    allow_descriptors(count + 100)
    opening = selectors.DefaultSelector()
    crowd: list[socket.socket] = []
    answered = 0
    while answered < count:
        while len(crowd) < count and len(crowd) - answered < TOGETHER:
            link = socket.create_connection(("127.0.0.1", port))
            link.sendall(REQUEST.format(namespace=namespace, id=len(crowd)).encode())
            opening.register(link, selectors.EVENT_READ)
            crowd.append(link)
        for key, _ in opening.select():
            answer = key.fileobj.recv(4096)  # type: ignore[union-attr]
            assert answer.startswith(b"HTTP/1.1 101 "), answer
            opening.unregister(key.fileobj)
            answered += 1
    print("in", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
