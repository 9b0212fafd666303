"""Asks Sentinels for the primary, and goes on asking while it is used.

All are asked at once. Of the answers of a majority the newest configuration counts, so a Sentinel
that was cut off during a failover does no harm. An old primary that is still alive goes on to
answer, but hears nothing that is published at the new one; hence the question every second.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from redis.exceptions import ResponseError

from cluster_pool.backplane.endpoint import Endpoint, drop, open_unless
from cluster_pool.backplane.logins import Raw
from cluster_pool.backplane.refusals import FAULTS, said
from cluster_pool.backplane.urls import Where, joined
from cluster_pool.core.ids import shown
from cluster_pool.exceptions import BackplaneUnavailableError

log = logging.getLogger("cluster_pool.backplane")

CONNECT: Final = 1.0
"""Seconds to wait at most for a socket to a Sentinel."""
PATIENCE: Final = 1.5
"""Seconds to wait for the answer of one Sentinel, the socket included."""
WHILE_OPENING: Final = 0.5
"""Seconds between two questions while a primary does not accept a socket."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The primary, as one Sentinel names it.

    Attributes:
        epoch: of the configuration, which grows with each failover; 0 without the right to ask.
    """

    where: Where
    epoch: int


class Sentinels:
    """The Sentinels that watch one service.

    Args:
        shown: their common address, without a password.
        min_others: other Sentinels that a Sentinel must see for its answer to count.
    """

    def __init__(
        self, shown: str, endpoints: Sequence[Endpoint], service: str, min_others: int
    ) -> None:
        self.shown = shown
        self.service = service
        self._endpoints = endpoints
        self._min_others = min_others

    async def primary(self, announced: Callable[[Where], Endpoint]) -> "WatchedPrimary":
        """The current primary.

        Args:
            announced: makes an endpoint of an announced host and port.

        Raises:
            BackplaneUnavailableError: no Sentinel names one.
        """
        async with contextlib.AsyncExitStack() as stack:
            answer = await newest(self.links(stack))
        return WatchedPrimary(announced(answer.where), answer, self)

    def links(self, stack: contextlib.AsyncExitStack) -> list["Link"]:
        """A link to each Sentinel, not connected; dropped at the end of ``stack``."""
        links = [Link(one, self.service, self._min_others) for one in self._endpoints]
        for link in links:
            stack.push_async_callback(link.drop)
        return links


class WatchedPrimary:
    """A primary that Sentinels have named, and a watch for the next one."""

    def __init__(self, endpoint: Endpoint, answer: Answer, sentinels: Sentinels) -> None:
        self.login = endpoint.login
        self.shown = endpoint.shown
        self.server = joined(answer.where)
        self._endpoint = endpoint
        self._answer = answer
        self._sentinels = sentinels

    async def open(self) -> Raw:
        """As :meth:`.Endpoint.open`, but raise once the Sentinels name another primary.

        A frozen primary accepts sockets and never answers.
        """
        return await open_unless(self._endpoint.open(), self.watch(WHILE_OPENING))

    async def watch(self, pause: float) -> None:
        """Ask every ``pause`` seconds; raises when another server is the primary.

        Without an answer it goes on: the primary works without Sentinels.
        """
        silent = False
        async with contextlib.AsyncExitStack() as stack:
            links = self._sentinels.links(stack)
            while True:
                await asyncio.sleep(pause)
                try:
                    answer = await newest(links)
                except BackplaneUnavailableError as error:
                    if not silent:
                        log.warning("a failover would not be noticed: %s", error)
                    silent = True
                    continue
                silent = False
                if answer.where != self._answer.where and answer.epoch >= self._answer.epoch:
                    raise BackplaneUnavailableError(
                        f"the primary of {shown(self._sentinels.service)} is now "
                        f"{joined(answer.where)}, and was {joined(self._answer.where)}"
                    )


class Link:
    """Asks one Sentinel over one socket, which is opened anew after a fault."""

    def __init__(self, endpoint: Endpoint, service: str, min_others: int) -> None:
        self._endpoint = endpoint
        self._where = joined(endpoint.login.where)
        self._service = service
        self._min_others = min_others
        self._connection: Raw | None = None

    async def ask(self) -> Answer:
        """The primary.

        Raises:
            BackplaneUnavailableError: this Sentinel does not name one.
        """
        try:
            async with asyncio.timeout(PATIENCE):
                return await self._ask()
        except BaseException as error:
            await self.drop()  # an answer may still be on its way
            if isinstance(error, TimeoutError):
                raise self._failed(f"said nothing for {PATIENCE:g} s") from None
            if isinstance(error, FAULTS):
                raise self._failed(_cannot_be_asked(said(error))) from error
            raise

    async def _ask(self) -> Answer:
        if self._connection is None:
            self._connection = await self._endpoint.open()
        found = await self._call("GET-MASTER-ADDR-BY-NAME", self._service)
        if not found:
            raise self._failed(
                f"does not know the service {shown(self._service)}{await self._known()}"
            )
        state = await self._state()
        others = int(state.get(b"num-other-sentinels", self._min_others))
        if others < self._min_others:
            raise self._failed(f"sees {others} others, and {self._min_others} are asked for")
        return Answer((found[0].decode(), int(found[1])), int(state.get(b"config-epoch", 0)))

    async def _state(self) -> dict[bytes, bytes]:
        """The fields of SENTINEL MASTER; {} without the right to ask."""
        try:
            flat = await self._call("MASTER", self._service)
        except ResponseError:
            return {}
        return dict(zip(flat[::2], flat[1::2], strict=False))

    async def _known(self) -> str:
        """The services that the Sentinel knows, for an error."""
        try:
            found = [
                dict(zip(one[::2], one[1::2], strict=False)) for one in await self._call("MASTERS")
            ]
        except ResponseError:
            return ""
        names = ", ".join(shown(one[b"name"].decode(errors="replace")) for one in found)
        return f", but {names}" if names else ", nor any other"

    async def _call(self, *words: str) -> Any:
        assert self._connection is not None
        await self._connection.send_command("SENTINEL", *words)
        return await self._connection.read_response()

    async def drop(self) -> None:
        """Close the socket, if there is one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await drop(connection)

    def _failed(self, what: str) -> BackplaneUnavailableError:
        return BackplaneUnavailableError(f"the Sentinel at {self._where} {what}")


def _cannot_be_asked(why: str) -> str:
    if "unknown command" in why:
        return "is no Sentinel: redis:// and rediss:// are for a Redis that stands alone"
    code = why.partition(" ")[0]
    advice = {
        "NOAUTH": "give sentinel_username= and sentinel_password=: those of Redis are others",
        "NOPERM": "its user must be allowed SENTINEL GET-MASTER-ADDR-BY-NAME and SENTINEL MASTER",
    }.get(code, "")
    return f"cannot be asked: {why}" + (advice and f" ({advice})")


async def newest(links: Sequence[Link]) -> Answer:
    """Ask all; the newest answer, once more than half have answered or all others have failed.

    Raises:
        BackplaneUnavailableError: none names a primary; with the reason of each.
    """
    waiting = {asyncio.create_task(link.ask()) for link in links}
    everyone = list(waiting)
    answers: list[Answer] = []
    failures: list[str] = []
    try:
        while waiting and len(answers) * 2 <= len(links):
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                try:
                    answers.append(task.result())
                except BackplaneUnavailableError as error:
                    failures.append(str(error))
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*everyone, return_exceptions=True)
    if not answers:
        raise BackplaneUnavailableError("; ".join(sorted(failures)))
    return max(answers, key=lambda answer: answer.epoch)
