"""What is done to the links, and when: drawn from a seed, so that it is the same for everyone."""

import random
from collections.abc import Sequence
from typing import NamedTuple

SENDER, RECEIVER = "sender", "receiver"
BOTH = (SENDER, RECEIVER)

CUT, HOLE, STRAND = "cut", "hole", "strand"

SHORTEST_HOLE, LONGEST_HOLE = 1.0, 5.0
PAUSE_BETWEEN_HOLES = 3.0


class Fault(NamedTuple):
    """One harm; after each, new links are well.

    Attributes:
        pause: seconds in which nothing happens before it.
        at: whose links to Redis are harmed.
        kind: CUT resets them; HOLE lets nothing pass for a while, and then what was held back;
            STRAND leaves them open, and nothing passes ever again.
        seconds: how long a hole lasts.
        upwards: whether a hole holds back what goes to Redis, too.
    """

    pause: float
    at: Sequence[str]
    kind: str
    seconds: float = 0.0
    upwards: bool = True


def cuts(seed: int, count: int, mean: float) -> list[Fault]:
    """Resets after exponential pauses, of either side; the last one of both."""
    rng = random.Random(seed)
    drawn = [Fault(rng.expovariate(1 / mean), (rng.choice(BOTH),), CUT) for _ in range(count)]
    return _ended_by_both(drawn)


def holes(seed: int, count: int) -> list[Fault]:
    """Black holes, downwards only and in both directions in turn; the last one for both sides."""
    rng = random.Random(seed)
    drawn = [
        Fault(
            rng.expovariate(1 / PAUSE_BETWEEN_HOLES),
            (rng.choice(BOTH),),
            HOLE,
            rng.uniform(SHORTEST_HOLE, LONGEST_HOLE),
            upwards=bool(at % 2),
        )
        for at in range(count)
    ]
    return _ended_by_both(drawn)


def stranding() -> list[Fault]:
    """All links there are, once."""
    return [Fault(0.0, BOTH, STRAND)]


def _ended_by_both(faults: list[Fault]) -> list[Fault]:
    """So that whoever is deaf after the last one has no harmless last one to thank."""
    return [*faults[:-1], faults[-1]._replace(at=BOTH)]
