"""All clients of a run, and what they are asked to do.

Run as ``python -m tools.chaos.clients``. What they heard is judged by the runner's account. Those
of the dense namespaces stay; some of the sparse ones come and go; those of namespaces with a
history come back all the time.
"""

import asyncio
from typing import Any

from tools.chaos import past, sparse
from tools.chaos.client import Client
from tools.chaos.coming import Visits
from tools.chaos.returning import Returns
from tools.harness.obeying import answer, obey_object


class Commands:
    """The commands of the clients."""

    def __init__(self) -> None:
        self._nodes: dict[str, int] = {}
        self._clients: list[Client] = []
        self._visits, self._returns = Visits(), Returns()

    async def nodes(self, ports: dict[str, int]) -> None:
        """Where clients may go: node ids and their ports."""
        self._nodes.clear()
        self._nodes.update(ports)

    async def come(self, members: list[tuple[str, str]]) -> None:
        """Open a client for each (namespace, id), spread over the nodes."""
        names = list(self._nodes)
        for at, (namespace, id) in enumerate(members):
            client = Client(namespace, id, self._nodes, names[at % len(names)])
            self._clients.append(client)
            if past.has_past(namespace):
                self._returns.add(client)
            elif client.sparse and not sparse.is_steady(namespace):
                self._visits.add(client)

    async def move(self, node: str) -> None:
        """Every second client of a node goes elsewhere, and leaves its connection as it is."""
        there = [one for one in self._clients if one.newest and one.newest.node == node]
        for client in [one for one in there if one.open][::2]:
            client.move()

    async def spread(self) -> None:
        """Let clients of crowded nodes go to the others, until each has its share."""
        for of in (True, False):
            self._spread([client for client in self._clients if client.sparse is of])

    def _spread(self, clients: list[Client]) -> None:
        crowds: dict[str, list[Client]] = {name: [] for name in self._nodes}
        for client in clients:
            if client.open and client.newest is not None and client.newest.node in crowds:
                crowds[client.newest.node].append(client)
        share = len(clients) // len(crowds)
        spare = [client for crowd in crowds.values() for client in crowd[share + 1 :]]
        for name, crowd in crowds.items():
            for _ in range(min(share - len(crowd), len(spare))):
                spare.pop().move(name)

    async def visits(self, going_on: bool) -> None:
        """Whether clients come and go."""
        self._visits.go_on(going_on)
        self._returns.go_on(going_on)

    async def away(self) -> int:
        """How many clients of the dense namespaces are not connected."""
        return sum(not client.open for client in self._clients if not client.sparse)

    async def unsettled(self) -> int:
        """How many clients are neither connected nor away by their own will."""
        under_way = self._visits.under_way + self._returns.under_way
        return under_way + sum(not client.settled for client in self._clients)

    async def present(self) -> list[tuple[str, str, str]]:
        """Every open connection: namespace, id, node."""
        return [
            (client.namespace, client.id, seen.node)
            for client in self._clients
            for seen in client.seen
            if seen.closed is None
        ]

    async def heard(self) -> int:
        """How many messages were heard since the last collect."""
        return sum(len(seen.heard) for client in self._clients for seen in client.seen)

    async def behind(self, marks: dict[str, dict[str, int]]) -> int:
        """How many open connections have not heard these numbers: namespace, sender, number."""
        return sum(
            seen.last.get(sender, 0) < number
            for client in self._clients
            for seen in client.seen
            if seen.closed is None
            for sender, number in marks.get(client.namespace, {}).items()
        )

    async def collect(self) -> list[dict[str, Any]]:
        """The messages of every connection since the last call; ended ones are then forgotten."""
        collected = []
        for client in self._clients:
            for seen in client.seen:
                collected.append({**seen.about(), "namespace": client.namespace, "id": client.id})
                seen.heard = []
            client.seen = [seen for seen in client.seen if seen.closed is None]
        return collected


async def main() -> None:
    """Be there until standard input ends; that cuts every connection."""
    commands = Commands()
    answer()
    await obey_object(commands)


if __name__ == "__main__":
    asyncio.run(main())
