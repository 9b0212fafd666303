"""``cluster-pool serve`` against Autobahn's cases, as kosoku runs them.

All cases about the protocol (sections 1 to 10), and of the 216 about compression (12 and 13), which
take minutes, those with the smallest messages and one that is fragmented; every one of them with
``CONFORMANCE=all`` in the environment.

A case passes with OK, with NON-STRICT (a SHOULD was not followed) and with INFORMATIONAL (the
specification leaves it open). UNIMPLEMENTED is a failure here.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers import RedisServer
from tools.harness.nodes import NodeProcess

pytestmark = pytest.mark.real

ECHO = """
async def echo(pool, connection):
    async for message in connection:
        await connection.send(message)
"""
SMALL_ONES = """
from cluster_pool.core import message
message.COMPRESSES = 0
"""
"""The cases about compression cannot read a text that was sent as it is, which a node does with
small ones (and may, by RFC 7692 section 6)."""
LARGEST = 32 * 1024 * 1024
FRAGMENTS = 65_536
"""The most that a case cuts a message into; `websockets` takes 4,096 unless told otherwise."""

KNOWN = {"7.1.5"}
"""A close in the middle of a fragmented message: `websockets` answers 1002, as it documents."""
PASSED = {"OK", "NON-STRICT", "INFORMATIONAL"}

PROTOCOL = [f"{section}.*" for section in (1, 2, 3, 4, 5, 6, 7, 9, 10)]
ALL_OF_COMPRESSION = ["12.*", "13.*"]
SOME_OF_COMPRESSION = [
    *[f"12.{data}.1" for data in range(1, 6)],
    *[f"13.{parameters}.1" for parameters in range(1, 8)],
    "12.1.11",
]
EVERYTHING = os.environ.get("CONFORMANCE") == "all"
COMPRESSION = (ALL_OF_COMPRESSION, 216) if EVERYTHING else (SOME_OF_COMPRESSION, 13)


def results(url: str, cases: list[str], folder: Path) -> dict[str, set[str]]:
    """Run cases, and give the verdicts on each: on its messages, and on its close.

    In a process of its own, because the cases want modules of Autobahn's on the path.
    """
    included = [word for case in cases for word in ("--include", case)]
    kosoku = Path(sys.executable).with_name("kosoku")
    ran = subprocess.run(
        [kosoku, url, "--outdir", folder, "--parallelism", "4", *included],
        capture_output=True,
        text=True,
        timeout=1200,
    )
    index = folder / "index.json"
    assert index.exists(), ran.stderr
    verdicts: dict[str, set[str]] = {}
    for agent in json.loads(index.read_text()).values():  # another name if no server answered
        for id, case in agent.items():
            verdicts.setdefault(id, set()).update((case["behavior"], case["behaviorClose"]))
    return verdicts


@pytest.mark.parametrize(
    ("cases", "least", "options"),
    [(PROTOCOL, 301, ()), (*COMPRESSION, ("--compression",))],
    ids=["protocol", "compression"],
)
def test_conformance(
    cases: list[str], least: int, options: tuple[str, ...], tmp_path: Path
) -> None:
    """No case fails except the one that `websockets` documents.

    The cases of section 12 and 13 take a ping for the end of what they wait for, hence none comes.
    """
    (tmp_path / "echo_app.py").write_text(ECHO + SMALL_ONES)
    node_options = (
        *("--app", "echo_app:echo", "--ping-interval", "3600", "--inbound-per-second", "100000"),
        *("--message-bytes", str(LARGEST), "--outbox-bytes", str(LARGEST), *options),
    )
    environment = {"WEBSOCKETS_MAX_FRAGMENTS": str(FRAGMENTS)}
    with (
        RedisServer("valkey") as server,
        NodeProcess(server.url, *node_options, environment=environment, folder=tmp_path) as node,
    ):
        verdicts = results(node.url("echo"), cases, tmp_path / "report")
    assert len(verdicts) >= least
    assert {id: got for id, got in verdicts.items() if not got <= PASSED}.keys() <= KNOWN
