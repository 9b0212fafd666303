"""Tells a service manager about this process: one datagram each, as sd_notify(3) describes it.

systemd passes the socket in ``NOTIFY_SOCKET`` to services of ``Type=notify``.
"""

import logging
import os
import socket
from typing import Final

log = logging.getLogger("cluster_pool.server")

READY: Final = "READY=1"
STOPPING: Final = "STOPPING=1"
PATIENCE: Final = 1.0
"""Seconds that the manager may take to make room for a datagram."""


def notify(state: str) -> None:
    """Send a state to the service manager, if there is one that waits for it.

    A failure is logged: the node serves its clients all the same.
    """
    name = os.environ.get("NOTIFY_SOCKET", "")
    if not name:
        return
    address = f"\0{name[1:]}" if name.startswith("@") else name
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.settimeout(PATIENCE)
            sender.connect(address)
            sender.send(state.encode())
    except OSError as error:
        log.warning("NOTIFY_SOCKET=%s was not told %s: %s", name, state, error)
