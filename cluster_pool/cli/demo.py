"""``demo``: a cluster that is started, used, hurt and stopped before your eyes. Nothing is faked.

The scenes are in :mod:`.demo_scenes`; the demo succeeds only if every row of theirs is right.
"""

import contextlib
import json
import secrets
import time
from dataclasses import asdict
from typing import Annotated

import typer

from cluster_pool.backplane.outsider import Outsider
from cluster_pool.cli.common import DONE, NO, JsonOption, RedisOption, run
from cluster_pool.cli.demo_cluster import cast
from cluster_pool.cli.demo_scenes import SCENES, Stage, connected
from cluster_pool.cli.demo_screen import Row, screen
from cluster_pool.cli.demo_slot import with_slot_move
from cluster_pool.embedded_cluster import EMBEDDED, Embedded, EmbeddedCluster
from cluster_pool.publisher import Publisher


def demo(
    clients: Annotated[
        int,
        typer.Option("--clients", help="How many.", min=9, max=3000),
    ] = 300,
    redis: RedisOption = "embedded",
    cluster: Annotated[
        bool,
        typer.Option("--cluster", help="The same as --redis embedded-cluster."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Start three nodes, 300 clients and a private Valkey; use them, hurt them, stop them.

    Takes about a quarter of a minute. Exit status 0 only if every number is right. With --redis
    it uses that server, under a prefix of its own, instead of a private one. With --cluster the
    private one is a Redis Cluster, and a slot of it moves under traffic. With --json it prints one
    object at the end and nothing before.
    """
    run(_demo("embedded-cluster" if cluster else redis, clients, as_json))


async def _demo(url: str, clients: int, as_json: bool) -> int:
    began = time.perf_counter()
    rows: list[Row] = []

    def add(row: Row) -> None:
        rows.append(row)
        shown.row(row)

    async with contextlib.AsyncExitStack() as stack:
        shown = stack.enter_context(screen(silent=as_json))
        shown.scene("starting Valkey, three nodes and the clients")
        scenes = SCENES
        if url in EMBEDDED:
            embedded: Embedded = EMBEDDED[url]()
            stack.enter_context(embedded)
            url = embedded.url
            if isinstance(embedded, EmbeddedCluster):
                scenes = with_slot_move(embedded)
        prefix = f"cluster_pool_demo_{secrets.token_hex(4)}"
        publisher = await stack.enter_async_context(Publisher(url, prefix=prefix))
        outsider = await stack.enter_async_context(Outsider.at(url, prefix))
        players = await stack.enter_async_context(cast(url, prefix, 3, clients))
        stage = Stage(players, publisher, outsider, began, shown)
        add(await connected(stage))
        for title, scene in scenes:
            shown.scene(title)
            add(await scene(stage))
    return _say_result(rows, time.perf_counter() - began, as_json)


def _say_result(rows: list[Row], seconds: float, as_json: bool) -> int:
    """Print what all rows come to, and give the exit status of that."""
    right = all(row.right for row in rows)
    if as_json:
        fields = [_rounded(row) for row in rows]
        result = {"right": right, "seconds": round(seconds, 3), "rows": fields}
        typer.echo(json.dumps(result))
    else:
        typer.echo(f"{'Every number is right' if right else 'NOT right'} ({seconds:.0f} s).")
    return DONE if right else NO


def _rounded(row: Row) -> dict[str, object]:
    fields = asdict(row)
    return {
        name: round(value, 3) if isinstance(value, float) else value
        for name, value in fields.items()
    }
