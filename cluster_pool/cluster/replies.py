"""Answers between nodes: the calls here that wait for one, and the answers that this node sends."""

import asyncio
import logging
import secrets
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from cluster_pool.backplane.calls import deadline_in
from cluster_pool.backplane.outbound import Outbound
from cluster_pool.core import envelope
from cluster_pool.core.config import Timing
from cluster_pool.core.envelope import ReplyTo
from cluster_pool.core.identity import Identity
from cluster_pool.core.ids import shown
from cluster_pool.core.results import SendResult
from cluster_pool.core.tally import Tally
from cluster_pool.exceptions import ClusterPoolError, PoolClosedError

log = logging.getLogger("cluster_pool.router")

FIRST_PAUSE, LAST_PAUSE = 0.1, 2.0
"""Seconds until an answer that was not heard is sent again; each pause is twice the one before, and
five of them are 3.1 s."""
MOST_HELD: Final = 10_000
"""Answers that wait for that, at most: many may be for processes that have gone."""


Gather = Callable[[str, Tally | None], None]
"""Gets the start of a node and its tally; or None for that when no more will come."""


class Replies:
    """The calls of this process that wait for another's answer, by the number of the request."""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._gathering: dict[int, Gather] = {}
        self._requests = secrets.randbits(52)  # numbers that no other process, start or fork has

    def expect(self) -> tuple[ReplyTo, "asyncio.Future[Any]"]:
        """The address for another node's answer, and the future of the answer."""
        to = self._address()
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[to.request] = future
        return to, future

    def gather(self, told: Gather) -> ReplyTo:
        """The address for the tallies of any number of nodes."""
        to = self._address()
        self._gathering[to.request] = told
        return to

    def _address(self) -> ReplyTo:
        self._requests += 1
        return ReplyTo(self._identity.node_id, self._requests, self._identity.start)

    def forget(self, to: ReplyTo) -> None:
        """The call that expected answers to this address has ended."""
        self._waiting.pop(to.request, None)
        self._gathering.pop(to.request, None)

    def heard(self, request: int, start: str, answer: SendResult | str) -> None:
        """An answer has come; it is ignored if another process with this node id asked for it."""
        if start != self._identity.start:
            return
        future = self._waiting.get(request)
        if future is not None and not future.done():
            future.set_result(answer)

    def counted(self, request: int, start: str, node: str, tally: Tally) -> None:
        """The tally of a node (by its start) has come; ignored as in :meth:`heard`."""
        told = self._gathering.get(request)
        if told is not None and start == self._identity.start:
            told(node, tally)

    def stop(self) -> None:
        """No more answers will come: fail every call that waits."""
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(PoolClosedError("stopped"))
                future.exception()  # read here: its caller may still be waiting for Redis
        for told in list(self._gathering.values()):
            told("", None)


class Answers:
    """Sends this node's answers to other nodes, without waiting for anything.

    An answer that no process heard is sent again a few times: on a Redis Cluster a node may send
    before it hears its own channel again, which is at home.
    """

    def __init__(self, outbound: Outbound, timing: Timing) -> None:
        self._outbound = outbound
        self._timing = timing
        self._held = 0
        """Answers that wait to be sent again."""

    def reply(self, to: ReplyTo, result: SendResult) -> None:
        """Send the result of a message or a question."""
        self._tell(to, envelope.reply(to, result))

    def answer_order(self, to: ReplyTo, refusal: str) -> None:
        """Send that an order was executed ("") or why not."""
        self._tell(to, envelope.answer(to, refusal))

    def tell_tally(self, to: ReplyTo, start: str, tally: Tally) -> None:
        """Send what became of a broadcast here, at the node of this start."""
        self._tell(to, tally.item(to, start))

    def _tell(self, to: ReplyTo, item: bytes) -> None:
        self._send(to, item, FIRST_PAUSE)

    def _send(self, to: ReplyTo, item: bytes, pause: float) -> None:
        deadline = deadline_in(self._timing.timeout)
        try:
            told = self._outbound.send_to_node(to.node, to.start, item, deadline)
        except ClusterPoolError as error:
            log.debug("no reply to %s: %s", shown(to.node), error)
        else:
            told.add_done_callback(partial(self._told, to, item, pause))

    def _told(self, to: ReplyTo, item: bytes, pause: float, told: asyncio.Future[int]) -> None:
        if told.cancelled() or told.exception() is not None or told.result():
            return
        if self._held < MOST_HELD and pause <= LAST_PAUSE:
            self._held += 1
            told.get_loop().call_later(pause, self._again, to, item, 2 * pause)

    def _again(self, to: ReplyTo, item: bytes, pause: float) -> None:
        self._held -= 1
        self._send(to, item, pause)
