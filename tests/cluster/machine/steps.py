"""State machines whose steps are coroutines in a world of nodes."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition

T = TypeVar("T")
anyone = st.integers(0, 2)


def pick(candidates: list[T], number: int) -> T:
    """One of the candidates, of which there is at least one."""
    return candidates[number % len(candidates)]


def given(some: Callable[[Any], Any]) -> Any:
    """The precondition of a rule: that there is one of these."""
    return precondition(lambda self: bool(some(self)))


def step(do: Callable[..., Any]) -> Callable[..., Any]:
    """Make a rule of a coroutine function, and see that the law holds meanwhile and behind it."""

    def run(self: "Machine", **drawn: Any) -> None:
        try:
            self.runner.run(self.watched(do(self, self.world, **drawn)))
        except BaseException:
            self.broken = True
            raise

    run.__name__, run.__doc__ = do.__name__, do.__doc__
    return run


class Machine(RuleBasedStateMachine):
    """Some nodes on one server; a derived class makes the world."""

    wounds: ClassVar[dict[str, Callable[[Any], Any]]] = {}
    """Faults of Redis, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.broken = False
        self.stack = contextlib.ExitStack()
        self.world: Any
        self.runner = self.open()

    def open(self) -> asyncio.Runner:
        """Make ``world``, and the loop in which it lives."""
        raise NotImplementedError

    async def watched(self, work: Any) -> None:
        """Do the work of a step, and look whether the law holds."""
        raise NotImplementedError

    async def finish(self, world: Any) -> None:
        """See in the end that all that was done had its effect."""
        raise NotImplementedError

    def teardown(self) -> None:
        """In the end nothing is left behind."""
        with self.stack:
            try:
                if not self.broken:
                    self.runner.run(self.watched(self.finish(self.world)))
            finally:
                self.runner.run(self.world.kill_all())
