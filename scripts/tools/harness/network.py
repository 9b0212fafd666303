"""The network before a Redis of any topology: a proxy before each server, and one fault for all."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

from tools.harness.proxy import Proxy


class Network:
    """Proxies before servers; faults and repairs are those of :class:`.Proxy`, at all of them.

    Args:
        targets: unix sockets of the servers.
        through: makes the URL of them all from the ports of the proxies, in the same order.
    """

    def __init__(self, targets: Sequence[Path], through: Callable[[Sequence[int]], str]) -> None:
        self.proxies = [Proxy(target) for target in targets]
        self._before = dict(zip(targets, self.proxies, strict=True))
        self._through = through

    async def __aenter__(self) -> Self:
        for proxy in self.proxies:
            await proxy.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.refuse()

    @property
    def url(self) -> str:
        """For ``--redis``."""
        return self._through([proxy.port for proxy in self.proxies])

    def before(self, target: Path) -> Proxy:
        """The proxy before one server, whose faults concern that server alone."""
        return self._before[target]

    @property
    def accepted(self) -> int:
        """Links that were taken so far."""
        return sum(proxy.accepted for proxy in self.proxies)

    @property
    def open_links(self) -> int:
        """Links that are forwarded at the moment."""
        return sum(proxy.open_links for proxy in self.proxies)

    @property
    def delay(self) -> float:
        """Seconds by which every chunk is late, in both directions."""
        return self.proxies[0].delay

    @delay.setter
    def delay(self, seconds: float) -> None:
        for proxy in self.proxies:
            proxy.delay = seconds

    async def cut(self) -> None:
        """Reset every link; new ones are taken."""
        await asyncio.gather(*[proxy.cut() for proxy in self.proxies])

    def hold(self, *, upwards: bool = True, downwards: bool = True) -> None:
        """A black hole, or half of one, until :meth:`heal`."""
        for proxy in self.proxies:
            proxy.hold(upwards=upwards, downwards=downwards)

    def strand(self) -> None:
        """Links that there are stay open and carry nothing ever again; new ones are well."""
        for proxy in self.proxies:
            proxy.strand()

    async def refuse(self) -> None:
        """Take no new links, and reset those there are."""
        await asyncio.gather(*[proxy.refuse() for proxy in self.proxies])

    def heal(self) -> None:
        """Let everything through again, what was held back first."""
        for proxy in self.proxies:
            proxy.heal()

    async def accept(self) -> None:
        """Undo :meth:`refuse`, at the same ports."""
        await asyncio.gather(*[proxy.accept() for proxy in self.proxies])
