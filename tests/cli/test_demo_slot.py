"""The demo on a Redis Cluster: all its scenes, and one in which a slot moves under traffic."""

import json
import subprocess
import sys

import pytest

from cluster_pool.cli.demo_scenes import SCENES
from cluster_pool.cli.demo_slot import with_slot_move
from cluster_pool.embedded_cluster import EmbeddedCluster

pytestmark = pytest.mark.real


def test_a_slot_moves_while_all_nodes_run() -> None:
    """The scene stands before the first one that stops a node; the others are as they were."""
    scenes = with_slot_move(EmbeddedCluster())
    added = [title for title, _ in scenes if title not in dict(SCENES)]
    assert added == ["a slot of the cluster moves to another primary, under traffic"]
    titles = [title for title, _ in scenes]
    assert titles.index(added[0]) < next(at for at, one in enumerate(titles) if "kill" in one)
    assert [scene for scene in scenes if scene[0] != added[0]] == SCENES


@pytest.mark.slow
def test_every_number_of_the_demo_is_right_on_a_cluster() -> None:
    """Nothing is lost or comes twice while the slot moves."""
    command = [sys.executable, "-m", "cluster_pool", "demo", "--cluster", "--clients", "30"]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    rows = {row["scene"]: row for row in json.loads(done.stdout)["rows"]}
    assert len(rows) == len(SCENES) + 2
    moved = rows["a slot moves"]
    assert moved["sent"] == moved["delivered"] > 50
    assert "SPUBLISH, as by redis-cli" in rows
