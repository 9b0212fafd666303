"""Every command line on the pages is run, or read by the program that it is for."""

import asyncio
import hashlib
import importlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from websockets.uri import parse_uri

from cluster_pool.cli import app
from tests.clusters import Backend
from tests.docs.pages import ROOT, Block, blocks
from tests.servers import Cluster, RedisServer
from tests.support import async_test

LINES = [
    (block, line.removeprefix("$ "))
    for block in blocks("console")
    for line in block.text.splitlines()
    if line.startswith("$ ")
]
ASSIGNMENT = re.compile(r"[A-Z_]+=\S+")


def words_of(line: str) -> list[str]:
    """The words of a command line without its comment, and without variables in front."""
    words = shlex.split(line, comments=True)
    while ASSIGNMENT.fullmatch(words[0]):
        words.pop(0)
    return words


def cluster_pool(words: list[str]) -> None:
    """Read by the real parser, which checks options, kinds of values and ranges."""
    group = typer.main.get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    with group.make_context("cluster-pool", list(words)) as context:
        name, command, rest = group.resolve_command(
            context, [*context._protected_args, *context.args]
        )
        assert command is not None
        with command.make_context(name, rest, parent=context):
            pass


def pip(words: list[str]) -> None:
    """Extras are those of the package."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    assert words.pop(0) == "install"
    for word in words:
        if found := re.fullmatch(r"\.\[([\w,]+)\]", word):
            assert set(found[1].split(",")) <= set(extras), word
        else:
            assert word in (".", "pytest"), word


def script(name: str) -> Callable[[list[str]], None]:
    """A script of the repository, which is there, and knows its options."""

    def check(words: list[str]) -> None:
        path = ROOT / "scripts" / name
        assert os.access(path, os.X_OK), path
        paths = [word for word in words if "/" in word]
        assert all((ROOT / word).exists() for word in paths), words
        options = {word.partition("=")[0] for word in words if word.startswith("-")}
        if options:
            assert options <= set(re.findall(r"--?[a-z][\w-]*", help_of(path))), words

    return check


def help_of(path: Path) -> str:
    """The help texts of a script and of the program behind it."""
    found = re.search(r'exec "\$venv/bin/python" -P -m ([\w.]+)', path.read_text())
    assert found, path
    python_path = os.pathsep.join(
        filter(None, [str(ROOT / "scripts"), os.environ.get("PYTHONPATH")])
    )
    done = subprocess.run(
        [sys.executable, "-P", "-m", found[1], "--help"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": python_path},
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    return path.read_text() + done.stdout


def file_of(option: str) -> Callable[[list[str]], None]:
    """A program that is given one file of ours; its syntax is tested where it is used."""

    def check(words: list[str]) -> None:
        assert words[0] == option
        assert (ROOT / words[1]).is_file(), words
        assert not words[2:], words

    return check


def printf(words: list[str]) -> None:
    """Run by the shell: the hash of a password."""
    done = subprocess.run(
        ["sh", "-c", " ".join(["printf", *words])], capture_output=True, text=True
    )
    assert done.stdout.split()[0] == hashlib.sha256(words[1].encode()).hexdigest()


def websockets(words: list[str]) -> None:
    """Its interactive client, which takes an address."""
    importlib.import_module("websockets.cli")
    (address,) = words
    parse_uri(address)


def redis_cli(words: list[str]) -> None:
    """Run by a test of its own, below."""
    assert words[0] == "PUBLISH" or words[:2] == ["-c", "SPUBLISH"]


def uvicorn(words: list[str]) -> None:
    """Read by the real parser; the application is run by tests/docs/test_fastapi.py."""
    main = importlib.import_module("uvicorn.main").main
    with main.make_context("uvicorn", list(words)):
        pass


def kill(words: list[str]) -> None:
    """The number of a process that the page has shown before."""
    assert words == ["-9", "4711"]


def docker(words: list[str]) -> None:
    """A compose file, whose services are tested in tests/test_compose.py."""
    *verbs, file, order = words
    assert verbs == ["compose", "-f"]
    assert order == "up"
    assert (ROOT / file).is_file(), words


def helm(words: list[str]) -> None:
    """The chart, which is tested in tests/deploy, with values of the reader's own."""
    verb, _, chart, option, _ = words
    assert (verb, option) == ("install", "--values")
    assert (ROOT / chart / "Chart.yaml").is_file(), words


def export(words: list[str]) -> None:
    """Variables of the compose files, or of the chat."""
    known = "".join(path.read_text() for path in ROOT.glob("deploy/compose*.yaml"))
    chat = (ROOT / "docs/chat/app.py").read_text()
    for name in (word.partition("=")[0] for word in words):
        assert f"${{{name}:?" in known or f'os.environ["{name}"]' in chat, name


PROGRAMS: dict[str, Callable[[list[str]], None]] = {
    "cluster-pool": cluster_pool,
    "pip": pip,
    "haproxy": file_of("-f"),
    "redis-server": file_of("--aclfile"),
    "redis-cli": redis_cli,
    "docker": docker,
    "helm": helm,
    "kill": kill,
    "uvicorn": uvicorn,
    "export": export,
    "printf": printf,
    "websockets": websockets,
    **{
        f"scripts/{path.name}": script(path.name)
        for path in (ROOT / "scripts").iterdir()
        if path.is_file() and not path.name.startswith("_")
    },
}
"""A reader for the command lines of each program. A program without one fails its test."""


def test_blocks_of_commands_have_commands() -> None:
    """A prompt in another form would hide the commands behind it."""
    for block in blocks("console"):
        assert all(line.startswith("$ ") for line in block.text.splitlines()), str(block)


@pytest.mark.parametrize(
    ("block", "line"),
    [
        pytest.param(
            *(block, line),
            id=f"{block}-{line}",
            marks=[pytest.mark.real] if line.startswith("scripts/") else [],  # asked for their help
        )
        for block, line in LINES
    ],
)
def test_a_command_line_is_one_that_its_program_takes(block: Block, line: str) -> None:
    """A renamed option, command, file or extra is then found on every page that names it."""
    program, *words = words_of(line)
    assert program in PROGRAMS, f"{block}: nothing checks {program!r}"
    PROGRAMS[program](words)


LASTING = ("serve", "watch", "drain")
"""Commands that last: their options are read above, what they do is tested in tests/cli."""


@async_test
async def test_commands_of_the_pages_run_in_a_cluster(
    own_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each ends with 0, or with 1 where the cluster says no."""
    monkeypatch.setenv("CLUSTER_POOL_REDIS", own_server.url)
    lines = [line for _, line in LINES if line.startswith("cluster-pool ")]
    async with Backend(own_server).pools(2) as (one, _):
        await one.host("room", "alice")
        for line in dict.fromkeys(lines):
            words = words_of(line)[1:]
            if words[0] not in LASTING:
                status = await asyncio.to_thread(app, words, standalone_mode=False)
                assert status in (0, 1), line


@pytest.mark.skipif(not shutil.which("redis-cli"), reason="redis-cli is not installed")
@async_test
async def test_publishing_by_redis_cli_reaches_everyone(own_server: RedisServer) -> None:
    """The exact command line, through the shell, which must leave the braces alone."""
    await _publish("redis-cli PUBLISH", f"-s {own_server.path}", Backend(own_server))


@pytest.mark.skipif(not shutil.which("redis-cli"), reason="redis-cli is not installed")
@async_test
async def test_publishing_by_redis_cli_to_a_cluster_reaches_everyone(
    shared_cluster: Cluster,
) -> None:
    """Asked at any node: redis-cli goes to the one that has the slot."""
    for node in shared_cluster.primaries:
        await _publish("redis-cli -c", f"-p {node.port}", Backend(shared_cluster))


async def _publish(line_begins: str, options: str, backend: Backend) -> None:
    """Run the line of the pages that begins so, with the options of a server."""
    (line,) = {line for _, line in LINES if line.startswith(line_begins)}
    command = line.replace("redis-cli", f"redis-cli {options}", 1)
    async with backend.pools() as (one, two):
        alice, bob = await one.host("default", "alice"), await two.host("default", "bob")
        process = await asyncio.create_subprocess_exec(
            "sh", "-c", command, stdout=asyncio.subprocess.PIPE
        )
        said, _ = await process.communicate()
        assert said.strip() == b"2"
        for member in (alice, bob):
            assert await member.wait_sent() == ["Hello world!"]
