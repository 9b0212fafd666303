"""The floor: one bare ``write(2)`` per message to as many sockets, and nothing else.

Run as ``python -m tools.bench.writer GATE``. Writes the same frame that a node would, to each of
the sockets in turn; the next message when the clients have read this one.
"""

import json
import os
import socket
import sys

from tools.bench.payloads import payload
from tools.harness.obeying import answer
from tools.harness.ports import HOST


def frame(number: int) -> bytes:
    """Message ``number`` as a WebSocket frame (RFC 6455 section 5.2)."""
    data = payload(number)
    return b"\x81\x7e" + len(data).to_bytes(2, "big") + data


def main(gate: int) -> None:
    """Accept, then write what is asked for until standard input ends."""
    listener = socket.create_server((HOST, 0), backlog=4096)
    answer({"port": listener.getsockname()[1]})
    sockets: list[socket.socket] = []
    for line in sys.stdin:
        fields = json.loads(line)
        if fields["do"] == "accept":
            sockets += [listener.accept()[0] for _ in range(fields["count"])]
            for link in sockets:
                link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        else:
            descriptors = [link.fileno() for link in sockets]
            for number in range(fields["first"], fields["first"] + fields["count"]):
                data = frame(number)
                for descriptor in descriptors:
                    os.write(descriptor, data)
                os.read(gate, 1)
        answer()


if __name__ == "__main__":
    main(int(sys.argv[1]))
