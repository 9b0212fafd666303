"""Numbers of messages in any order of what can happen to one channel, at one node and its Redis.

A small world takes random steps: messages are published and arrive late, links break, attempts to
connect fail, the channel is dropped and wanted again, its counter cannot be read, Redis comes back
from a snapshot, and a replica takes over. No gap may name more messages than were missed, and where
Redis has lost nothing, none may be silent about one.
"""

import random
from collections.abc import Callable

import pytest

from cluster_pool.core.numbers import (
    NO_COUNTER,
    SHORTEST_LIFE,
    UNKNOWN,
    UNREADABLE,
    Counter,
    Numbers,
    ServerChange,
)

STEPS = 60
SEEDS = 1500
CHANNEL = "c"
UNREAD = Counter(UNREADABLE, 0)


class World:
    """A channel, a node that may want it, and the servers that count its messages.

    Attributes:
        missed: messages that were published while the channel was wanted, and were not heard yet.
        owed: those of them that were published after counting had begun.
        told: how many gaps have named.
    """

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.numbers = Numbers()
        self.missed: set[int] = set()
        self.owed: set[int] = set()
        self.told = 0
        self._published = 0
        self._time = 10 * SHORTEST_LIFE
        self._counter = self._snapshot = self._replica = Counter(None, 0)
        self._server = self._known_server = 0
        self._readable = True
        self._wanted = self._subscribed = self._up = self._lost = self._unread = False
        self._resubscribed = False
        self._change = ServerChange.SAME
        self._on_the_way: list[tuple[str, int, int]] = []
        self._commands: list[bool] = []
        """Subscriptions and unsubscriptions that Redis has not read."""
        self._attempt: list[Counter] | None = None
        """An attempt to connect, and the counter that it has read."""
        self._confirming: list[Counter] | None = None
        """A subscription that was asked for, and the counter behind it."""

    # -- at Redis --------------------------------------------------------------------------

    def publish(self) -> None:
        """One message; another server than before begins another epoch."""
        if not self._readable:
            return
        self._published += 1
        epoch, number, former = self._counter[:3]
        if epoch is None or int(epoch[-1]) != self._server:
            former = (epoch, number) if epoch else None
            self._time += 10
            epoch, number = str(self._time + self._server), 0
        self._counter = Counter(epoch, number + 1, former)
        if self._wanted:
            self.missed.add(self._published)
        if self.numbers._last.get(CHANNEL, UNKNOWN) != UNKNOWN:
            self.owed.add(self._published)
        if self._subscribed:
            self._on_the_way.append((epoch, number + 1, self._published))

    def read_command(self) -> None:
        """Redis reads a subscription or its end."""
        if self._commands:
            self._subscribed = self._commands.pop(0)

    def toggle(self) -> None:
        """The counter can be read or not, as while the cluster is down for a moment."""
        self._readable = not self._readable

    def save(self) -> None:
        """Keep a snapshot."""
        self._snapshot = self._counter

    def restore(self) -> None:
        """Redis comes back from the snapshot, and its replica follows it."""
        self.break_links()
        self._counter = self._replica = self._snapshot
        self._lost = True

    def replicate(self) -> None:
        """The replica has everything."""
        self._replica = self._counter

    def fail_over(self) -> None:
        """The replica takes over; what it has not got is lost."""
        self.break_links()
        self._counter = self._snapshot = self._replica
        self._server ^= 1

    def _read(self) -> Counter:
        return self._counter if self._readable else UNREAD

    # -- at the node -----------------------------------------------------------------------

    def deliver(self) -> None:
        """One message arrives."""
        if self._on_the_way:
            epoch, number, name = self._on_the_way.pop(0)
            if self._wanted:
                self.numbers.heard(CHANNEL, epoch, number, 1)
                self.missed.discard(name)
                self.owed.discard(name)

    def break_links(self) -> None:
        """Messages on their way are lost; an attempt to connect has failed."""
        self._on_the_way, self._commands = [], []
        self._attempt = self._confirming = None
        self._up = self._subscribed = self._unread = self._resubscribed = False
        self.numbers.interrupted()

    def connect(self) -> None:
        """The next part of an attempt: subscribe, read the counter, hear all that it counts."""
        if self._up:
            return
        if self._attempt is None:
            self._attempt, self._subscribed = [], self._wanted
            self._resubscribed = self._wanted
            self._look_at_server()
        elif not self._attempt:
            self._attempt.append(self._read())
        elif self._readable:
            self._hear_all()
            if self._resubscribed:
                self._compare(self._attempt[0], self._change)
            self._change, self._up, self._attempt = ServerChange.SAME, True, None

    def _look_at_server(self) -> None:
        if self._known_server != self._server:
            self._change = max(self._change, ServerChange.TAKEN_OVER)
        elif self._lost:
            self._change = ServerChange.LOST
        self._known_server, self._lost = self._server, False

    def _hear_all(self) -> None:
        while self._on_the_way:
            self.deliver()

    def _compare(self, counter: Counter, change: ServerChange) -> None:
        self.numbers.resubscribed(CHANNEL, counter, change, self._time)
        self._unread = counter.epoch == UNREADABLE

    def read_again(self) -> None:
        """A counter that could not be read can be read now."""
        if self._up and self._unread and self._readable:
            counter = self._read()
            self._hear_all()
            self._compare(counter, ServerChange.SAME)

    def want(self) -> None:
        """The channel is wanted."""
        self._wanted = True

    def confirm(self) -> None:
        """The next part of a subscription: ask for it, read the counter, begin to count."""
        if not (self._up and self._wanted):
            return
        if self._confirming is None:
            self._commands.append(True)
            self._confirming = []
        elif not self._confirming and not self._commands:
            self._confirming.append(self._read())
        elif len(self._confirming) == 1:
            counter = self._confirming[0]
            self.numbers.begin(CHANNEL, counter.epoch or NO_COUNTER, counter.number)
            self._confirming.append(counter)

    def drop(self) -> None:
        """It is wanted no more, and nothing is owed."""
        self._wanted = self._unread = self._resubscribed = False
        self._confirming = None
        self.numbers.forget(CHANNEL)
        self.owed.clear()
        if self._up or self._attempt is not None:
            self._commands.append(False)

    # -- all of it -------------------------------------------------------------------------

    def settle(self) -> None:
        """Let everything come to its end."""
        self._readable = True
        for _ in range(4):
            for step in (self.read_command, self.connect, self.confirm, self.read_again):
                step()
        self._hear_all()

    def count(self) -> None:
        """Take what a gap would name now."""
        self.told += self.numbers.take_missed()[0].get(CHANNEL, 0)


OFTEN = [World.publish, World.deliver, World.connect, World.confirm, World.read_command] * 6
SELDOM = [World.break_links, World.want, World.want, World.toggle, World.read_again]
LOSSES = [World.save, World.restore, World.replicate, World.fail_over, World.drop]


def walked(seed: int, steps: list[Callable[[World], None]]) -> World:
    """A world after some steps, in each of which no gap has named too much."""
    world = World(random.Random(seed))
    for at in range(STEPS):
        world.chance.choice(steps)(world)
        world.count()
        assert world.told <= len(world.missed), f"seed {seed}, step {at}"
    world.settle()
    world.count()
    assert world.told <= len(world.missed), f"seed {seed}, in the end"
    return world


@pytest.mark.parametrize("part", range(4))
def test_no_gap_names_more_than_was_missed(part: int) -> None:
    """Over everything that can happen."""
    for seed in range(part * SEEDS, (part + 1) * SEEDS):
        walked(seed, OFTEN + SELDOM + LOSSES)


@pytest.mark.parametrize("part", range(4))
def test_no_message_is_missed_in_silence(part: int) -> None:
    """While Redis has lost nothing, and the channel stays wanted."""
    for seed in range(part * SEEDS, (part + 1) * SEEDS):
        world = walked(seed, OFTEN + SELDOM)
        assert world.told >= len(world.owed), f"seed {seed}"
