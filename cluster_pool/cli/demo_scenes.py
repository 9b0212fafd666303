"""The scenes of the demo: each does one thing to the cluster and returns a row of results.

A row counts what was sent, delivered and lost, and says whether every number is right.
"""

import asyncio
import contextlib
import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from typing import Final

from cluster_pool.backplane.outsider import Outsider
from cluster_pool.cli.demo_cluster import NAMESPACE, Cast, Client, open_all
from cluster_pool.cli.demo_screen import Row, Screen
from cluster_pool.core.config import Timing
from cluster_pool.publisher import Publisher

PATIENCE = 10.0
"""Seconds until a message that has not arrived counts as lost."""
BAR = 20
"""Characters that show how a lease runs out."""
STAY_AWAY = 3
"""One of so many clients of the killed node does not come back."""


@dataclass
class Stage:
    """The nodes, clients and helpers of every scene."""

    cast: Cast
    publisher: Publisher
    outsider: Outsider
    began: float
    screen: Screen

    async def arrived(self, text: str, clients: list[Client]) -> None:
        """Wait until each of these clients has heard ``text``, ``PATIENCE`` seconds at most."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                for client in clients:
                    await client.hears(text)


def heard_row(
    scene: str, clients: list[Client], texts: list[str], sent_at: list[float], remark: str
) -> Row:
    """Make a row of what the clients heard: each must have heard its text exactly once."""
    delays = [
        (client.times(text)[0] - at) * 1000
        for client, text, at in zip(clients, texts, sent_at, strict=True)
        if client.times(text)
    ]
    twice = sum(len(one.times(text)) > 1 for one, text in zip(clients, texts, strict=True))
    lost = len(clients) - len(delays)
    if twice:
        remark = f"{twice} heard it twice"
    return Row(scene, len(clients), len(delays), lost, *_spread(delays), not lost + twice, remark)


async def targeted(stage: Stage) -> Row:
    """Every client has its node send to the next client, which another node owns."""
    senders = stage.cast.clients
    receivers = senders[1:] + senders[:1]
    texts = [f"to {one.id}" for one in receivers]
    sent_at: list[float] = []

    async def ask(sender: Client, receiver: Client, text: str) -> bool:
        sent_at.append(time.perf_counter())
        return bool(await sender.ask(send=receiver.id, text=text) == "delivered")

    answers = await asyncio.gather(*map(ask, senders, receivers, texts))
    for receiver, text in zip(receivers, texts, strict=True):
        await stage.arrived(text, [receiver])
    row = heard_row("targeted sends, node to node", receivers, texts, sent_at, "all confirmed")
    return row if all(answers) else _wrong(row, f"{answers.count(False)} not confirmed")


async def broadcast(stage: Stage) -> Row:
    """One client has its node broadcast."""
    clients = stage.cast.clients
    sent_at = time.perf_counter()
    nodes = await clients[0].ask(broadcast="to everyone")
    await stage.arrived("to everyone", clients)
    return _all_heard("one broadcast", clients, "to everyone", sent_at, f"{nodes} nodes told")


async def published(stage: Stage) -> Row:
    """A program without this library publishes, as redis-cli does."""
    clients = stage.cast.clients
    text, channel = "Hello world!", stage.outsider.channel(NAMESPACE)
    sent_at = time.perf_counter()
    await stage.outsider.publish(NAMESPACE, text)
    await stage.arrived(text, clients)
    scene = f"{stage.outsider.publish_command}, as by redis-cli"
    return _all_heard(scene, clients, text, sent_at, channel)


async def takeover(stage: Stage) -> Row:
    """A second client connects to another node with the id of a first one."""
    older = stage.cast.clients[0]
    newer = Client(older.id, stage.cast.nodes[1])
    began = time.perf_counter()
    await newer.open()
    code = await older.ended()
    took = (time.perf_counter() - began) * 1000
    stage.cast.clients[0] = newer
    text = "to the newer one"
    result = await stage.publisher.send(NAMESPACE, newer.id, text, confirm=True)
    await stage.arrived(text, [newer])
    right = code == 4409 and bool(result) and not older.times(text) and bool(newer.times(text))
    got = len(newer.times(text))
    return Row("takeover of an id", 1, got, 1 - got, took, took, right, f"older closed with {code}")


async def kill(stage: Stage) -> Row:
    """A node is killed; two thirds of its clients come back elsewhere, the rest become ghosts."""
    victim = stage.cast.nodes[1]
    theirs = stage.cast.of(victim)
    survivors = [node for node in stage.cast.nodes if node is not victim and node.running]
    await victim.kill()
    killed_at = time.perf_counter()
    for client in theirs:
        await client.ended()
    away = theirs[::STAY_AWAY]
    back = [client for client in theirs if client not in away]
    for number, client in enumerate(back):
        client.node = survivors[number % len(survivors)]
    await open_all(back)
    came_back = (time.perf_counter() - killed_at) * 1000
    stage.cast.clients = [one for one in stage.cast.clients if one not in away]
    expected = len(stage.cast.clients)
    seen = await stage.publisher.count(NAMESPACE)
    ghosts = await _ghosts_gone(stage, expected, killed_at)
    remark = f"{len(back)} back in {came_back:.0f} ms, {len(away)} ghosts gone in {ghosts:.1f} s"
    return Row(
        "kill -9 of a node",
        len(back),
        len(back),
        0,
        came_back,
        ghosts * 1000,
        seen == expected + len(away) and ghosts < PATIENCE * 2,
        remark,
    )


async def _ghosts_gone(stage: Stage, expected: int, since: float) -> float:
    """Return the seconds until count, members and registry are free of ghosts."""
    while time.perf_counter() - since < PATIENCE * 2:
        count = await stage.publisher.count(NAMESPACE)
        stage.screen.detail(lease_left(time.perf_counter() - since, count, expected))
        if count == expected:
            listed = [member async for member in stage.publisher.members(NAMESPACE)]
            if len(listed) == expected == await stage.outsider.registered(NAMESPACE):
                break
        await asyncio.sleep(0.05)
    return time.perf_counter() - since


def lease_left(seconds: float, count: int, expected: int) -> str:
    """Draw how the lease of the killed node runs out; it was renewed just before the kill."""
    lease = Timing().lease
    filled = round(min(seconds / lease, 1.0) * BAR)
    bar = "#" * filled + "-" * (BAR - filled)
    return f"[{bar}] {seconds:4.1f} of {lease:.0f} s: {count} members, {expected} are there"


async def after_kill(stage: Stage) -> Row:
    """Every connected client is reached, on the node where it is now."""
    clients = stage.cast.clients
    texts = [f"after the kill, {one.id}" for one in clients]
    sent_at = [time.perf_counter()] * len(clients)
    results = await asyncio.gather(
        *[
            stage.publisher.send(NAMESPACE, one.id, text, confirm=True)
            for one, text in zip(clients, texts, strict=True)
        ]
    )
    for client, text in zip(clients, texts, strict=True):
        await stage.arrived(text, [client])
    row = heard_row("targeted sends after the kill", clients, texts, sent_at, "all confirmed")
    return row if all(results) else _wrong(row, "not all were confirmed")


async def restart(stage: Stage) -> Row:
    """A node is asked to stop: its clients are closed at a pace and come back elsewhere."""
    leaving = stage.cast.nodes[2]
    theirs = stage.cast.of(leaving)
    stage_left = stage.cast.nodes[0]
    began = time.perf_counter()
    stopping = asyncio.create_task(leaving.terminate())
    codes: list[int] = []

    async def move(client: Client) -> None:
        codes.append(await client.ended())
        client.node = stage_left
        await client.open()

    await asyncio.gather(*map(move, theirs))
    status = await stopping
    took = (time.perf_counter() - began) * 1000
    count = await stage.publisher.count(NAMESPACE)
    right = status == 0 and set(codes) <= {1012} and count == len(stage.cast.clients)
    return Row(
        "SIGTERM of a node",
        len(theirs),
        codes.count(1012),
        len(theirs) - codes.count(1012),
        None,
        took,
        right,
        f"closed with 1012 at the cluster's pace, exit status {status}",
    )


async def stop(stage: Stage) -> Row:
    """The last node stops; nothing may stay in Redis but what expires by itself."""
    clients = stage.cast.clients
    began = time.perf_counter()
    status = await stage.cast.nodes[0].terminate()
    codes = [await client.ended() for client in clients]
    took = (time.perf_counter() - began) * 1000
    await stage.publisher.stop()
    kept = await stage.outsider.permanent_keys()
    right = status == 0 and set(codes) <= {1012} and not kept
    return Row(
        "SIGTERM of the last node",
        len(clients),
        codes.count(1012),
        len(clients) - codes.count(1012),
        None,
        took,
        right,
        f"exit status {status}, {len(kept)} keys left in Redis",
    )


async def connected(stage: Stage) -> Row:
    """Server, nodes and clients are up: every client is counted."""
    clients = len(stage.cast.clients)
    count = await stage.publisher.count(NAMESPACE)
    took = (time.perf_counter() - stage.began) * 1000
    remark = "server, 3 nodes, clients: all up"
    return Row("connect", clients, count, clients - count, None, took, count == clients, remark)


def _all_heard(scene: str, clients: list[Client], text: str, at: float, remark: str) -> Row:
    return heard_row(scene, clients, [text] * len(clients), [at] * len(clients), remark)


def _spread(delays: list[float]) -> tuple[float | None, float | None]:
    return (statistics.median(delays), max(delays)) if delays else (None, None)


def _wrong(row: Row, remark: str) -> Row:
    return Row(**{**asdict(row), "right": False, "remark": remark})


Scene = tuple[str, Callable[[Stage], Awaitable[Row]]]
"""A title, and the function that plays it."""

SCENES: Final[list[Scene]] = [
    ("every client sends to the next one, through their nodes", targeted),
    ("one broadcast to everyone", broadcast),
    ("a PUBLISH from outside, as redis-cli would", published),
    ("a second client takes an id over, at another node", takeover),
    ("kill -9 of node-2; watching its ghosts disappear (lease: 10 s)", kill),
    ("sending to everyone who is left", after_kill),
    ("SIGTERM to node-3; its clients move at a pace", restart),
    ("SIGTERM to the last node; looking for what it left in Redis", stop),
]
