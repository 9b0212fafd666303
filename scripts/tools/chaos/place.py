"""A place where a program of a run is, with its own way to Redis."""

from collections.abc import Sequence

from tools.chaos.ledger import Ledger
from tools.harness.network import Network
from tools.harness.programs import Program


class Place:
    """Where a node or a publisher runs: its own way to Redis, and the program that is there now."""

    def __init__(
        self,
        kind: str,
        number: int,
        proxy: Network,
        ledger: Ledger,
        members: int = 0,
        crowds: Sequence[str] = (),
    ) -> None:
        self.kind = kind
        self.members = members
        """Members of each crowd at this node."""
        self._crowds = [*crowds]
        self.number = number
        self.proxy = proxy
        self.node = ""
        self.port = 0
        self.away = False
        """Frozen, or not there at all."""
        self._ledger = ledger
        self._starts = 0
        self.program: Program

    async def start(self) -> None:
        """Start a program under a fresh name, and wait until it is ready."""
        self._starts += 1
        self.node = node = f"{self.kind}-{self.number}.{self._starts}"
        self.program = await Program.start(
            f"tools.chaos.{self.kind}",
            self.proxy.url,
            node,
            on_told=lambda what, fields: self._ledger.told(node, what, fields),
        )
        self.port = self.program.hello
        if self.members:
            await self.program.ask("hold", count=self.members, crowds=self._crowds)

    async def stop(self) -> None:
        """Let the program end by itself; it is a failure if it does not."""
        if wrong := await self.program.stop():
            self._ledger.wrong.append(f"{self.node} {wrong}")
