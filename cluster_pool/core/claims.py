"""Claims as the registry stores them: ``incarnation:time:nonce``, at most 40 bytes.

The incarnation names the lease that guards the claim, ``start.rejoin``. The time is the Redis TIME
of the claim in µs, made greater than the one it replaced. The nonce tells the claims of one start
from one another.
"""

from typing import NamedTuple

CHECKSUM_MODULUS = 1_000_000_000
"""The checksum of an owner is the sum of the times of its claims, each modulo this."""


class Claim(NamedTuple):
    """A registered ownership; the token is (time, nonce)."""

    incarnation: str
    time: int
    nonce: str

    @classmethod
    def parse(cls, value: str) -> "Claim":
        """Read a stored value; raises ValueError if it is none."""
        incarnation, time, nonce = value.split(":")
        return cls(incarnation, int(time), nonce)

    def __str__(self) -> str:
        return f"{self.incarnation}:{self.time}:{self.nonce}"

    @property
    def start(self) -> str:
        """The start of the node that made the claim, whatever its rejoins since."""
        return self.incarnation.partition(".")[0]

    @property
    def rejoin(self) -> int:
        """Which lease of that start guards it: 0 for the first, one more for each rejoin."""
        return int(self.incarnation.rpartition(".")[2])


def incarnation_of(start: str, rejoin: int) -> str:
    """The name of the lease that a node takes at its start (0) and at each rejoin."""
    return f"{start}.{rejoin}"
