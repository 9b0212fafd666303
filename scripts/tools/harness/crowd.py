"""A program: a crowd of WebSockets that come as fast as they can, and go when its input ends.

Run as ``python -m tools.harness.crowd PORT PATH COUNT [MANNER [TOGETHER]]``. A handshake costs it a
fraction of what it costs any server. It answers with the seconds that it took until all were in.
"""

import selectors
import socket
import sys
import time

from tools.harness.frames import request
from tools.harness.linux import too_few_descriptors
from tools.harness.obeying import answer
from tools.harness.ports import HOST

SILENT, STUCK = "silent", "stuck"
"""Its manner: it does nothing; its buffers are small as well, and fill up."""
TOGETHER = 200
"""Handshakes under way at once."""
SMALL = 4096
PAUSE = 0.1
"""Seconds until a client comes again whom a busy node has refused."""


def come(port: int, path: str, count: int, *, small: bool, together: int) -> list[socket.socket]:
    """Connect all of them; client ``N`` comes with the id ``cN``, again if the node is busy."""
    opening = selectors.DefaultSelector()
    crowd: list[socket.socket] = []
    coming = [*range(count - 1, -1, -1)]
    while len(crowd) < count:
        while coming and len(opening.get_map()) < together:
            number = coming.pop()
            link = socket.socket()
            if small:
                link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL)
            link.connect((HOST, port))
            link.sendall(request(f"{path}?id=c{number}"))
            opening.register(link, selectors.EVENT_READ, number)
        for key, _ in opening.select():
            assert isinstance(key.fileobj, socket.socket)
            link = key.fileobj
            said = link.recv(4096)
            opening.unregister(link)
            if said.startswith(b"HTTP/1.1 101 "):
                crowd.append(link)
            elif said.startswith(b"HTTP/1.1 503 "):
                link.close()
                time.sleep(PAUSE)
                coming.append(key.data)
            else:
                raise RuntimeError(f"no handshake: {said!r}")
    return crowd


def main(port: str, path: str, count: str, manner: str = SILENT, together: str = "") -> None:
    """Come, say so, and stay until standard input ends."""
    if why := too_few_descriptors(int(count)):
        raise SystemExit(why)
    begun = time.monotonic()
    crowd = come(
        *(int(port), path, int(count)), small=manner == STUCK, together=int(together or TOGETHER)
    )
    answer({"seconds": time.monotonic() - begun})
    sys.stdin.read()
    for link in crowd:
        link.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
