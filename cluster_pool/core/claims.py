"""Claims as the registry stores them: ``incarnation:time:nonce``, at most 40 bytes.

The incarnation names the lease that guards the claim, ``start.rejoin``. The time is the Redis TIME
of the claim in µs, made greater than the one it replaced. The nonce tells the claims of one start
from one another.
"""

import re
from collections import deque
from sys import intern
from typing import Final, NamedTuple

CHECKSUM_MODULUS = 1_000_000_000
"""The checksum of an owner is the sum of the times of its claims, each modulo this."""

LONGEST: Final = 255
"""The size of the longest claim that scripts read, in bytes."""
LATEST: Final = 2**53 - 1
"""The greatest time of a claim: beyond it the numbers of scripts, doubles, are not exact."""
_CLAIM: Final = re.compile(r"([\w.-]+):(\d{1,16}):([A-Za-z0-9]+)", re.ASCII)


class Claim(NamedTuple):
    """A registered ownership; the token is (time, nonce)."""

    incarnation: str
    time: int
    nonce: str

    @classmethod
    def parse(cls, value: object) -> "Claim | None":
        """Read a stored value, ``str`` or ``bytes``; None if it is no claim."""
        if isinstance(value, bytes):
            value = value.decode("ascii", "replace")
        found = _CLAIM.fullmatch(value) if isinstance(value, str) else None
        if found is None or len(found[0]) > LONGEST or int(found[2]) > LATEST:
            return None
        return cls(intern(found[1]), int(found[2]), found[3])  # one string for all of a lease

    def __str__(self) -> str:
        return f"{self.incarnation}:{self.time}:{self.nonce}"

    @property
    def start(self) -> str:
        """The start of the node that made the claim; it stays the same over rejoins."""
        return start_of(self.incarnation)

    @property
    def rejoin(self) -> int:
        """The number of the lease that guards it: 0 for the first of the start, +1 per rejoin."""
        number = self.incarnation.rpartition(".")[2]
        return int(number) if number.isdecimal() else 0


class FormerClaims:
    """The last ``most`` claims that a node released or lost."""

    def __init__(self, most: int) -> None:
        self._claims: deque[tuple[str, str, int, str]] = deque(maxlen=most)

    def note(self, namespace: str, id: str, claim: Claim | None) -> None:
        """A claim is not held any more; None is ignored."""
        if claim is not None:
            self._claims.append((namespace, id, claim.time, claim.nonce))

    def had(self, namespace: str, id: str, claim: Claim) -> bool:
        """Whether a claim was held, under whichever lease."""
        return (namespace, id, claim.time, claim.nonce) in self._claims


def incarnation_of(start: str, rejoin: int) -> str:
    """The name of the lease that a node takes at its start (0) and at each rejoin."""
    return f"{start}.{rejoin}"


def start_of(incarnation: str) -> str:
    """The start of the node that took a lease under this name."""
    return incarnation.partition(".")[0]
