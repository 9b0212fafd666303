"""A call whose result is the owner's answer, or an error or the deadline that comes first.

It makes no task, so that the item has its place in the order of the calls, and many calls cost
little. The caller has only the future of its result.
"""

import asyncio

from cluster_pool.cluster.replies import Replies
from cluster_pool.core.envelope import ReplyTo
from cluster_pool.core.results import SendResult


class Confirmation:
    """Waits until an item was sent, and then for its owner's answer.

    Args:
        replies: who is told that the answer is not awaited any more.
        to: the address of the answer, and ``answer`` its future.
        deadline: from when on an item that was routed is TIMED_OUT; of the loop's clock.
        result: gets the answer, or the result or error of an item that was not routed. When it is
            cancelled, an item that was not sent yet is dropped.
    """

    __slots__ = ("_answer", "_deadline", "_loop", "_replies", "_result", "_sent", "_timer", "_to")

    def __init__(
        self,
        replies: Replies,
        to: ReplyTo,
        answer: asyncio.Future[SendResult],
        deadline: float,
        result: asyncio.Future[SendResult],
    ) -> None:
        self._replies = replies
        self._to = to
        self._answer = answer
        self._deadline = deadline
        self._result = result
        self._loop = result.get_loop()
        self._sent: asyncio.Future[SendResult] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, sent: asyncio.Future[SendResult]) -> asyncio.Future[SendResult]:
        """Wait for an item that is queued; returns the future of the result."""
        self._sent = sent
        sent.add_done_callback(self._was_sent)
        self._answer.add_done_callback(self._answered)
        self._result.add_done_callback(self._over)
        return self._result

    def _was_sent(self, sent: asyncio.Future[SendResult]) -> None:
        error = None if sent.cancelled() else sent.exception()
        if self._result.done():
            return
        if sent.cancelled():
            self._result.cancel()
        elif error is not None:
            self._result.set_exception(error)
        elif sent.result() is not SendResult.ROUTED:
            self._result.set_result(sent.result())
        elif self._answer.done():
            self._end(_read(self._answer))
        else:
            self._timer = self._loop.call_at(self._deadline, self._end, SendResult.TIMED_OUT)

    def _answered(self, answer: asyncio.Future[SendResult]) -> None:
        """The owner has answered; or this process stops, which is no result of an item that may
        not have been sent yet."""
        result = _read(answer)
        if result is not SendResult.TIMED_OUT or self._timer is not None:
            self._end(result)

    def _end(self, result: SendResult) -> None:
        if not self._result.done():
            self._result.set_result(result)

    def _over(self, result: asyncio.Future[SendResult]) -> None:
        self._replies.forget(self._to)
        if self._timer is not None:
            self._timer.cancel()
        if self._sent is not None:
            self._sent.cancel()


def _read(answer: asyncio.Future[SendResult]) -> SendResult:
    """An answer that has come; TIMED_OUT when this process stops: the item is on its way."""
    failed = answer.cancelled() or answer.exception() is not None
    return SendResult.TIMED_OUT if failed else answer.result()
