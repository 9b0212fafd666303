"""Sending, with and without a shortcut to connections of this process."""

from cluster_pool import SendResult
from cluster_pool.cluster.sending import Receipt, Sending
from tests.clusters import Backend
from tests.support import async_test


class Near:
    """A shortcut to one member."""

    def __init__(self) -> None:
        self.told: list[object] = []

    def send(
        self,
        namespace: str,
        id: str,
        text: bool,
        payload: bytes,
        close: tuple[int, str] | None,
        receipt: Receipt | None = None,
    ) -> SendResult | None:
        if id != "near":
            return None
        self.told += [payload, close]
        return SendResult.DELIVERED

    def close(
        self, namespace: str, id: str, code: int, reason: str, receipt: Receipt | None = None
    ) -> SendResult | None:
        if id != "near":
            return None
        self.told.append((code, reason))
        return SendResult.DELIVERED


@async_test
async def test_sends_to_members_here_use_the_shortcut() -> None:
    """Everything else goes over Redis, and without a shortcut everything does."""
    async with Backend(None).pools(1) as (one,):
        node, near = one._parts, Near()
        assert node is not None
        before = one.statistics()["published"]
        sending = Sending(node.backplane, node.replies, near)
        future = node.loop.create_future
        assert await sending.send_nowait("n", "near", "1", None, future()) is SendResult.DELIVERED
        assert (
            await sending.send("n", "near", "2", (4000, ""), True, None, future())
            is SendResult.DELIVERED
        )
        assert await sending.close("n", "near", 4001, "", False, None) is SendResult.DELIVERED
        assert near.told == [b"1", None, b"2", (4000, ""), (4001, "")]
        assert one.statistics()["published"] == before
        assert await sending.send_nowait("n", "far", "1", None, future()) is SendResult.ABSENT
        without = Sending(node.backplane, node.replies, None)
        assert await without.send("n", "near", "1", None, True, None, future()) is SendResult.ABSENT
        assert len(near.told) == 5
