"""What `serve` logs, and what it takes from the environment."""

import asyncio
import json
import logging
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from cluster_pool.cli.environment import set_aside
from cluster_pool.cli.logs import JsonFormatter, TextFormatter
from cluster_pool.core.results import DrainReport
from tests.servers import RedisServer
from tests.support import async_test, eventually
from tools.harness.nodes import NodeProcess, close_code, in_thread

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
    """A member that comes and goes, one whose request is refused, one whom the app fails."""
    async with node.connect("room", "alice"):
        pass
    assert (await in_thread(node.get, "/ws/"))[0] == 400
    assert (await in_thread(node.get, "/nowhere"))[0] == 404


@pytest.mark.parametrize("how", [("--log-format", "text"), ()])
@async_test
async def test_each_line_has_time_level_and_node(
    own_server: RedisServer, how: tuple[str, ...]
) -> None:
    """Connects, departures with their code and refusals have a line each at DEBUG."""
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
async def test_with_json_every_line_is_an_object(own_server: RedisServer, tmp_path: Path) -> None:
    """Also warnings, what asyncio or a thread says, tracebacks, the end of the process."""
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
    """One that ends by itself."""
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
def test_errors_are_objects_too(wrong: tuple[str, ...], variable: bool) -> None:
    """Where the log is JSON nothing else goes to standard error, whatever is wrong."""
    if variable:
        done = serve(*wrong, CLUSTER_POOL_LOG_FORMAT="json")
    else:
        done = serve("--log-format", "json", *wrong)
    assert done.returncode in (2, 3)
    assert done.stdout == ""
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert "error" in lines[-1]


def test_a_bug_that_ends_the_process_is_one_object(tmp_path: Path) -> None:
    """A traceback that nobody caught, in a field."""
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


def test_a_format_or_a_level_that_is_none() -> None:
    """Bad usage, said before anything is done."""
    for wrong in (("--log-format", "xml"), ("--log-level", "loud")):
        done = serve(*wrong)
        assert done.returncode == 2
        assert wrong[0] in done.stderr


def test_a_message_of_several_lines_is_one() -> None:
    """Nobody writes lines of his own into the log, and what cannot be formatted is no end."""
    record = logging.makeLogRecord({"msg": "a\nb %s", "args": ("\udc80",), "levelname": "INFO"})
    text, objects = TextFormatter(), JsonFormatter()
    text.node = objects.node = lambda: "n"
    assert text.format(record).count("\n") == 0
    assert json.loads(objects.format(record))["message"] == "a\nb \udc80"


def test_the_library_configures_no_logging() -> None:
    """Only who runs the process does."""
    program = """
import logging, cluster_pool, sys
hooks = sys.excepthook, sys.unraisablehook
pool = cluster_pool.ClusterPool("redis://127.0.0.1:1")
assert not logging.root.handlers and logging.root.level == logging.WARNING
assert not logging.getLogger("cluster_pool").handlers
assert hooks == (sys.__excepthook__, sys.__unraisablehook__)
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_a_report_of_a_drain_has_digits_that_say_something() -> None:
    """It is logged as it is."""
    report = DrainReport(closed=40, forced=1, seconds=12.345678901234567, peak_rate=4)
    assert "closed=40, forced=1, seconds=12.3, peak_rate=4" in str(report)


@pytest.mark.parametrize("as_json", [True, False])
def test_a_command_says_why_it_waits(own_server: RedisServer, as_json: bool) -> None:
    """One that goes on while Redis is away has a line about it, JSON where JSON was wanted."""
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


# -- the environment -----------------------------------------------------------------------

INJECTED = {
    "CLUSTER_POOL_PORT": "tcp://10.0.0.1:80",
    "CLUSTER_POOL_PORT_80_TCP": "tcp://10.0.0.1:80",
    "CLUSTER_POOL_PORT_80_TCP_ADDR": "10.0.0.1",
    "CLUSTER_POOL_PORT_80_TCP_PORT": "80",
    "CLUSTER_POOL_PORT_80_TCP_PROTO": "tcp",
    "CLUSTER_POOL_SERVICE_HOST": "10.0.0.1",
    "CLUSTER_POOL_SERVICE_PORT": "80",
    "CLUSTER_POOL_SERVICE_PORT_HTTP": "80",
    "CLUSTER_POOL_ADMIN_PORT": "tcp://[fd00::1]:8001",
    "CLUSTER_POOL_AGENT_PORT": "udp://10.0.0.2:9",
}


@async_test
async def test_what_kubernetes_injects_is_ignored_and_said(own_server: RedisServer) -> None:
    """Services of such names are no settings; one line each for those that look like one."""
    with NodeProcess(own_server.url, environment=INJECTED) as node:
        assert node.get("/readyz")[0] == 200
        assert node.listening["admin_port"] is None
        node.signal(15)
        said = (await in_thread(node.finish))[1]
    ignored = [line for line in said.splitlines() if "is ignored: Kubernetes" in line]
    assert len(ignored) == 3
    assert "CLUSTER_POOL_PORT=tcp://10.0.0.1:80" in said
    assert "Traceback" not in said


def test_settings_are_not_taken_for_what_kubernetes_injects() -> None:
    """A port is a number."""
    kept = {"CLUSTER_POOL_PORT": "8000", "CLUSTER_POOL_REDIS": "tcp://x", "OTHER_PORT": "tcp://x"}
    assert set_aside({**kept}) == []
    mixed = {**kept, **INJECTED}
    assert len(set_aside(mixed)) == 3
    assert "CLUSTER_POOL_PORT" not in mixed


ACTS = {
    "CLUSTER_POOL_ALL": "1",
    "CLUSTER_POOL_FORCE": "1",
    "CLUSTER_POOL_PAUSE": "1",
    "CLUSTER_POOL_CANCEL": "1",
    "CLUSTER_POOL_DETACH": "1",
    "CLUSTER_POOL_BINARY": "1",
    "CLUSTER_POOL_CONFIRM": "1",
    "CLUSTER_POOL_EXCLUDE": "alice",
    "CLUSTER_POOL_CODE": "4000",
    "CLUSTER_POOL_REASON": "from the environment",
    "CLUSTER_POOL_RATE": "1",
    "CLUSTER_POOL_GRACE": "1",
    "CLUSTER_POOL_ANNOUNCE": "0",
    "CLUSTER_POOL_MESSAGE": "from the environment",
}


@async_test
async def test_no_variable_makes_a_command_act(own_server: RedisServer) -> None:
    """Whom it closes and how is said on its own line."""
    environment = {**ACTS, "CLUSTER_POOL_REDIS": own_server.url}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "cluster_pool", *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)

    with NodeProcess(own_server.url, "--node-id", "n-1") as node:
        async with node.connect("room", "alice") as alice:
            assert (await in_thread(run, "close", "room")).returncode == 2
            assert (await in_thread(run, "drain")).returncode == 2
            assert (await in_thread(run, "broadcast", "room", "hi")).returncode == 0
            assert await asyncio.wait_for(alice.recv(), 10) == "hi"
            assert (await in_thread(run, "close", "room", "alice")).returncode == 0
            assert await close_code(alice) == 1000
            assert alice.close_reason == ""
        await eventually(lambda: node.get("/readyz")[0] == 200)


def test_variables_are_for_settings_only() -> None:
    """Where Redis is, how its cluster is called, how `serve` runs: and each stands in the help."""
    from typer.main import get_command

    from cluster_pool.cli import app

    everywhere = {"redis", "prefix", "secret", "timeout", "as_json"}
    for name, command in get_command(app).commands.items():  # type: ignore[attr-defined]
        for parameter in command.params:
            if parameter.envvar and name != "serve":
                assert parameter.name in everywhere, (name, parameter.name)
