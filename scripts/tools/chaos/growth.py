"""Whether nodes that lived through a whole soak hold more at its end than at its begin."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from tools.chaos.runner import Sample

MIB = 1024 * 1024
WARM_UP = 0.1
"""This share of the samples is left out of the slope: a young process grows."""
SLACK = 3
"""Tasks and descriptors that may be on their way at the moment of a look."""


@dataclass
class Growth:
    """One node's. ``slope`` is in MB per hour, None where there are too few samples for one."""

    node: str
    samples: int
    memory: tuple[float, float]
    slope: float | None
    tasks: tuple[int, int]
    descriptors: tuple[int, int]

    def failures(self) -> list[str]:
        """What did not come back to where it was."""
        return [
            f"{self.node} has {after} {name}, and had {before} at the begin"
            for name, (before, after) in (("tasks", self.tasks), ("descriptors", self.descriptors))
            if after > before + SLACK
        ]

    def __str__(self) -> str:
        slope = "" if self.slope is None else f", {self.slope:+.2f} MB per hour"
        return (
            f"{self.node}: memory {self.memory[0]:.1f} to {self.memory[1]:.1f} MB{slope};"
            f" tasks {self.tasks[0]} to {self.tasks[1]};"
            f" descriptors {self.descriptors[0]} to {self.descriptors[1]}"
        )

    def as_dict(self) -> dict[str, object]:
        """For ``--json``."""
        return asdict(self)


def growth(samples: Sequence[Sample], rounds: int) -> list[Growth]:
    """Of the nodes of which there is a sample of every round."""
    by_node: dict[str, list[Sample]] = {}
    for sample in samples:
        by_node.setdefault(sample.node, []).append(sample)
    return [_of(node, own) for node, own in by_node.items() if len(own) == rounds]


def _of(node: str, samples: Sequence[Sample]) -> Growth:
    first, last = samples[0], samples[-1]
    return Growth(
        node,
        len(samples),
        (first.memory / MIB, last.memory / MIB),
        _slope(samples[int(len(samples) * WARM_UP) :]),
        (first.tasks, last.tasks),
        (first.descriptors, last.descriptors),
    )


def _slope(samples: Sequence[Sample]) -> float | None:
    """Least squares, in MB per hour."""
    if len(samples) < 10:
        return None
    at = sum(sample.at for sample in samples) / len(samples)
    mean = sum(sample.memory for sample in samples) / len(samples)
    both = sum((sample.at - at) * (sample.memory - mean) for sample in samples)
    alone = sum((sample.at - at) ** 2 for sample in samples)
    return both / alone * 3600 / MIB
