"""The scene of the demo on a Redis Cluster: a slot moves to another primary under traffic."""

import asyncio
import time
from typing import Final

from cluster_pool.cli.demo_cluster import NAMESPACE, Client
from cluster_pool.cli.demo_scenes import SCENES, Scene, Stage, heard_row
from cluster_pool.cli.demo_screen import Row
from cluster_pool.core.results import SendResult
from cluster_pool.embedded_cluster import EmbeddedCluster
from cluster_pool.exceptions import BackplaneUnavailableError

BEFORE, HALF, AFTER = 0.5, 0.5, 1.0
"""Seconds of traffic before the move, while half of the keys are moved, and after it."""
PAUSE: Final = 0.005
"""Seconds between two sends."""
PLACE: Final = 3
"""The place after the third scene, when all nodes still run."""


def with_slot_move(cluster: EmbeddedCluster) -> list[Scene]:
    """All scenes, with the one of this file among them."""

    async def scene(stage: Stage) -> Row:
        return await slot_move(stage, cluster)

    title = "a slot of the cluster moves to another primary, under traffic"
    return [*SCENES[:PLACE], (title, scene), *SCENES[PLACE:]]


async def slot_move(stage: Stage, cluster: EmbeddedCluster) -> Row:
    """The slot of the demo moves, while messages are sent to one client after another.

    An undelivered message is sent again: it may arrive twice only if its first result did not
    tell whether it had arrived.
    """
    sending = asyncio.create_task(_send_until(stage, stopped := asyncio.Event()))
    await asyncio.sleep(BEFORE)
    slot = await asyncio.to_thread(cluster.move, stage.outsider.channel(NAMESPACE), HALF)
    await asyncio.sleep(AFTER)
    stopped.set()
    receivers, texts, sent_at, again = await sending
    for receiver, text in zip(receivers, texts, strict=True):
        await stage.arrived(text, [receiver])
    remark = f"slot {slot}, half-way for {HALF:g} s; {again} sends were made again"
    return heard_row("a slot moves", receivers, texts, sent_at, remark)


async def _send_until(
    stage: Stage, stopped: asyncio.Event
) -> tuple[list[Client], list[str], list[float], int]:
    """Send to one client after another; gives receivers, texts, times, and how many repeats."""
    clients = stage.cast.clients
    receivers: list[Client] = []
    texts: list[str] = []
    sent_at: list[float] = []
    again = 0
    while not stopped.is_set():
        receivers.append(clients[len(texts) % len(clients)])
        texts.append(f"while it moves, {len(texts)}")
        sent_at.append(time.perf_counter())
        while not await _is_delivered(stage, receivers[-1], texts[-1]):
            again += 1
            await asyncio.sleep(PAUSE)
        await asyncio.sleep(PAUSE)
    return receivers, texts, sent_at, again


async def _is_delivered(stage: Stage, client: Client, text: str) -> bool:
    try:
        result = await stage.publisher.send(NAMESPACE, client.id, text, confirm=True)
    except BackplaneUnavailableError:
        return False
    return result is SendResult.DELIVERED
