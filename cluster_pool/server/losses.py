"""Tells clients of ``cluster-pool.v1`` where they may lack messages that their node has missed.

An interrupted subscription loses messages, and no client would know. All of them are told, since
the node does not know for whom the messages were.
"""

import asyncio
from typing import Final

from cluster_pool.core import client_frames
from cluster_pool.core.ids import is_reserved
from cluster_pool.core.message import Outgoing
from cluster_pool.core.results import Gap
from cluster_pool.local.connection import Connection
from cluster_pool.local.outbox import deliver

YIELD_EVERY: Final = 500
"""Frames after which others have their turn."""


class Losses:
    """The clients of a node that are told.

    Attributes:
        clients: they come and go with their connections.
    """

    def __init__(self) -> None:
        self.clients: set[Connection] = set()

    async def tell(self, gap: Gap) -> None:
        """Tell each client of its namespaces in which messages were missed, or may have been."""
        private = any(not name or is_reserved(name) for name in gap.namespaces)
        frames: dict[str, Outgoing] = {}
        told = 0
        for client in list(self.clients):
            missed = _missed(client, gap, private)
            for namespace in missed:
                frame = frames.get(namespace)
                if frame is None:
                    frame = frames[namespace] = client_frames.lost(namespace)
                deliver(client, frame)
            told += 1 + len(missed)
            if told >= YIELD_EVERY:
                told = 0
                await asyncio.sleep(0)


def _missed(client: Connection, gap: Gap, private: bool) -> list[str]:
    """Namespaces of a client in which it may lack messages.

    Args:
        private: whether messages to single members or users were missed: the home stands for them.
    """
    return [
        namespace
        for namespace in client.namespaces
        if namespace in gap.namespaces
        or not gap.exact
        or (private and namespace == client.namespace)
    ]
