"""Whether what was heard came in the order in which it was sent."""

import itertools
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import TypeVar

Message = TypeVar("Message", bound=Hashable)


def out_of_order(heard: Iterable[tuple[str, int]]) -> Iterator[tuple[str, int, int]]:
    """Per sender the numbers must grow; gives sender, the late number, and the one before it."""
    last: dict[str, int] = {}
    for sender, number in heard:
        if number < last.get(sender, 0):
            yield sender, number, last[sender]
        else:
            last[sender] = number


def without_one_order(lists: Iterable[Sequence[Message]]) -> list[Message]:
    """The messages for which no one order agrees with every list; empty when there is one.

    Removes messages that have none before them until none is left, or only cycles are.
    """
    followers: dict[Message, set[Message]] = defaultdict(set)
    before: dict[Message, int] = defaultdict(int)
    for messages in lists:
        for earlier, later in itertools.pairwise(messages):
            if later not in followers[earlier]:
                followers[earlier].add(later)
                before[later] += 1
    free = [message for message in followers if not before[message]]
    while free:
        for later in followers.pop(free.pop(), ()):
            before[later] -= 1
            if not before[later]:
                free.append(later)
    return [message for message in before if before[message]]
