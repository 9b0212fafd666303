"""Whether nodes that lived through a whole soak hold more at its end than at its begin."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter

MIB = 1024 * 1024
WARM_UP = 0.1
"""This share of the samples is left out of the slope: a young process grows."""
ENOUGH = 10
"""Samples for a slope."""
SLACK = 3
"""Tasks and descriptors that may be on their way at the moment of a look."""


@dataclass
class Sample:
    """The holdings of a node beside its connections, at the end of a round."""

    at: float
    node: str
    memory: int
    tasks: int
    descriptors: int


@dataclass
class Growth:
    """One node's. ``slope`` is in MB per hour, None where there are too few samples for one."""

    node: str
    memory: tuple[float, float]
    slope: float | None
    tasks: tuple[int, int]
    descriptors: tuple[int, int]

    def failures(self) -> list[str]:
        """The numbers that did not come back to where they were."""
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


def growth(samples: Sequence[Sample], rounds: int) -> list[Growth]:
    """The growth of the nodes that have a sample of every round."""
    by_node = groupby(sorted(samples, key=attrgetter("node", "at")), key=attrgetter("node"))
    return [_of(own) for own in (list(group) for _, group in by_node) if len(own) == rounds]


def _of(samples: Sequence[Sample]) -> Growth:
    first, last = samples[0], samples[-1]
    grown = samples[int(len(samples) * WARM_UP) :]
    slope = None
    if len(grown) >= ENOUGH:
        line = statistics.linear_regression(
            [one.at for one in grown], [one.memory for one in grown]
        )
        slope = line.slope * 3600 / MIB
    return Growth(
        first.node,
        (first.memory / MIB, last.memory / MIB),
        slope,
        (first.tasks, last.tasks),
        (first.descriptors, last.descriptors),
    )
