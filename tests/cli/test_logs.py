"""The log of `serve`, as text and as JSON."""

import json
import logging
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from cluster_pool.cli.logs import JsonFormatter, TextFormatter
from cluster_pool.core.results import DrainReport
from tests.servers import RedisServer
from tests.support import async_test
from tools.harness.nodes import NodeProcess, close_code, in_thread

pytestmark = pytest.mark.real

LINE = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d "
    r"(DEBUG|INFO|WARNING|ERROR) (\S+) [\w.]+: .+"
)

APP = """
import asyncio, logging, threading, warnings

async def handler(pool, connection):
    warnings.warn("an old way\\nof two lines", DeprecationWarning)
    loop = asyncio.get_running_loop()
    loop.call_soon(lambda: 1 / 0)
    thread = threading.Thread(target=lambda: [].pop())
    thread.start()
    thread.join()
    logging.getLogger("theirs").warning("does not %s: %d", "fit", "a number")
    raise ValueError("said by the app")
"""


async def visit(node: NodeProcess) -> None:
    """A member that comes and goes, a client whose request is refused, one whose app fails."""
    async with node.connect("room", "alice"):
        pass
    assert (await in_thread(node.get, "/ws/"))[0] == 400
    assert (await in_thread(node.get, "/nowhere"))[0] == 404


@pytest.mark.parametrize("how", [("--log-format", "text"), ()])
@async_test
async def test_each_log_line_has_time_level_and_node(
    own_server: RedisServer, how: tuple[str, ...]
) -> None:
    """Connects, departures with their code, and refusals have a line each at DEBUG."""
    with NodeProcess(own_server.url, "--node-id", "n-1", "--log-level", "debug", *how) as node:
        await visit(node)
        node.signal(15)
        said = (await in_thread(node.finish))[1].splitlines()
    if how:
        found = [LINE.fullmatch(line) for line in said]
        assert all(found), said
        assert {match[2] for match in found if match} <= {"n-1", "-"}
        texts = said
    else:
        texts = [json.loads(line)["message"] for line in said]
    for word in ("joined: <Connection 'alice'", "leaves: <Connection 'alice'", "refused"):
        assert any(word in text for text in texts), (word, said)
    assert len([text for text in texts if "joined" in text]) == 1
    assert any("1000" in text for text in texts if "leaves" in text)
    assert not any(re.search(r"\d\.\d{7}", text) for text in texts), said


@async_test
async def test_json_log_has_one_object_per_line(own_server: RedisServer, tmp_path: Path) -> None:
    """Also warnings, messages of asyncio and threads, tracebacks, and the end of the process."""
    (tmp_path / "failing.py").write_text(APP)
    options = ("--app", "failing:handler", "--log-format", "json", "--node-id", "n-1")
    settings = {"PYTHONWARNINGS": "always"}
    with NodeProcess(own_server.url, *options, environment=settings, folder=tmp_path) as node:
        async with node.connect("room", "alice") as alice:
            assert await close_code(alice) == 1011
        node.signal(15)
        status, said = await in_thread(node.finish)
    assert status == 0
    lines = [json.loads(line) for line in said.splitlines()]
    for line in lines:
        assert line.keys() - {"traceback"} == {"time", "level", "node", "logger", "message"}
    by_logger: dict[str, list[dict[str, Any]]] = {}
    for line in lines:
        by_logger.setdefault(line["logger"], []).append(line)
    assert "an old way" in by_logger["py.warnings"][0]["message"]
    assert "ZeroDivisionError" in by_logger["asyncio"][0]["traceback"]
    assert "does not %s: %d" in by_logger["theirs"][0]["message"]
    failed = [line for line in by_logger["cluster_pool.server"] if "app failed" in line["message"]]
    assert "ValueError: said by the app" in failed[0]["traceback"]
    assert any("IndexError" in line.get("traceback", "") for line in by_logger["cluster_pool"])
    assert {line["node"] for line in lines} <= {"n-1", ""}


def serve(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A node that ends by itself."""
    command = [sys.executable, "-m", "cluster_pool", "serve", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("variable", [True, False])
@pytest.mark.parametrize(
    "wrong",
    [
        ("--redis", "redis://127.0.0.1:1"),
        ("--redis", "redis://:12#34@127.0.0.1"),
        ("--port", "x"),
        ("--nonsense",),
    ],
)
def test_usage_errors_of_serve_are_json_with_a_json_log(
    wrong: tuple[str, ...], variable: bool
) -> None:
    """With a JSON log nothing else goes to standard error."""
    if variable:
        done = serve(*wrong, CLUSTER_POOL_LOG_FORMAT="json")
    else:
        done = serve("--log-format", "json", *wrong)
    assert done.returncode in (2, 3)
    assert done.stdout == ""
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert "error" in lines[-1]


def test_uncaught_error_is_one_json_object(tmp_path: Path) -> None:
    """An uncaught exception's traceback is in a field."""
    (tmp_path / "broken.py").write_text("1 / 0\n")
    done = subprocess.run(
        [sys.executable, "-m", "cluster_pool", "serve", "--log-format=json", "--app", "broken:x"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    (line,) = [json.loads(line) for line in done.stderr.splitlines()]
    assert "ZeroDivisionError" in line["traceback"]


def test_unknown_log_format_or_level_exits_with_2() -> None:
    """The usage error comes before anything is done."""
    for wrong in (("--log-format", "xml"), ("--log-level", "loud")):
        done = serve(*wrong)
        assert done.returncode == 2
        assert wrong[0] in done.stderr


def test_log_message_of_several_lines_becomes_one_line() -> None:
    """No user can forge a line of the log, and an unprintable message does not end it."""
    record = logging.makeLogRecord({"msg": "a\nb %s", "args": ("\udc80",), "levelname": "INFO"})
    text, objects = TextFormatter(), JsonFormatter()
    text.node = objects.node = lambda: "n"
    assert text.format(record).count("\n") == 0
    assert json.loads(objects.format(record))["message"] == "a\nb \udc80"


def test_importing_the_library_configures_no_logging() -> None:
    """Only a program that runs a process does."""
    program = """
import logging, cluster_pool, sys
hooks = sys.excepthook, sys.unraisablehook
pool = cluster_pool.ClusterPool("redis://127.0.0.1:1")
assert not logging.root.handlers and logging.root.level == logging.WARNING
assert not logging.getLogger("cluster_pool").handlers
assert hooks == (sys.__excepthook__, sys.__unraisablehook__)
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_drain_report_is_logged_with_rounded_numbers() -> None:
    """The counts and times are short."""
    report = DrainReport(closed=40, forced=1, seconds=12.345678901234567, peak_rate=4)
    assert "closed=40, forced=1, seconds=12.3, peak_rate=4" in str(report)


@pytest.mark.parametrize("as_json", [True, False])
def test_command_notes_the_loss_of_redis(own_server: RedisServer, as_json: bool) -> None:
    """A command that goes on while Redis is away prints a line, as JSON if that was asked for."""
    command = [sys.executable, "-m", "cluster_pool", "watch", "room", "--redis", own_server.url]
    watching = subprocess.Popen(
        [*command, *(["--json"] if as_json else [])],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert watching.stderr is not None
    try:
        while "sub=2" not in own_server.command("CLIENT", "LIST"):
            assert watching.poll() is None
            time.sleep(0.05)
        own_server.kill()
        lines = []
        while not any("lost Redis" in line for line in lines):
            lines.append(watching.stderr.readline())
            assert lines[-1], "it ended without a word"
        if as_json:
            assert "lost Redis" in json.loads(lines[-1])["note"]
        else:
            assert lines[-1].startswith("cluster-pool: lost Redis at unix://")
    finally:
        watching.kill()
        watching.communicate()
