"""The messages to namespaces with a history: to members that are there, and that are away."""

import random
from collections.abc import Sequence

from tools.chaos.books import BROADCAST, CONFIRM, SEND
from tools.chaos.caller import Caller
from tools.chaos.streams import Ticker

KINDS = (SEND, SEND, CONFIRM, BROADCAST)


class PastStream(Ticker):
    """Broadcasts and targeted messages; a namespace gets as many as it has members."""

    def __init__(self, caller: Caller, seed: str) -> None:
        super().__init__(self._one)
        self._caller = caller
        self._random = random.Random(f"past {seed}")
        self.members: Sequence[tuple[str, str]] = ()

    def _one(self) -> None:
        namespace, id = self._random.choice(self.members)
        kind = self._random.choice(KINDS)
        self._caller.call_soon(kind, namespace, "" if kind == BROADCAST else id)
