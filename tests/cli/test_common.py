"""Errors of all commands, as text or JSON, and their exit statuses."""

import asyncio
import io
import json
import logging
import sys

import pytest
import typer

from cluster_pool import BackplaneUnavailableError, InvalidValueError, PoolClosedError
from cluster_pool.cli import common
from cluster_pool.cli.common import explain, message_from
from cluster_pool.embedded import EmbeddedUnavailableError
from tests.cli.commands import run

pytestmark = pytest.mark.real


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (("members",), 2),
        (("members", "{"), 2),
        (("nonsense",), 2),
        (("send", "room", "alice", "x", "--nonsense"), 2),
        (("serve", "--port", "x"), 2),
        (("demo", "--clients", "1"), 2),
        (("close", "room"), 2),
        (("drain",), 2),
        (("nodes", "--redis", "redis://127.0.0.1:1"), 3),
        (("serve", "--port", "0", "--log-level", "error", "--redis", "redis://127.0.0.1:1"), 3),
        (("watch", "room", "--redis", "redis://127.0.0.1:1"), 3),
    ],
)
def test_errors_are_json_with_the_json_option(arguments: tuple[str, ...], status: int) -> None:
    """With --json: one object on standard error, and nothing on standard output."""
    got, out, said = run(*arguments, "--json")
    assert (got, out) == (status, "")
    error = json.loads(said)
    assert error["status"] == status
    assert error["error"]


def test_errors_are_json_with_the_json_variable() -> None:
    """For an invalid command line, too; behind -- the word is an argument."""
    status, out, said = run("send", "room", "--nonsense", CLUSTER_POOL_JSON="1")
    assert (status, out, json.loads(said)["status"]) == (2, "", 2)
    assert run("send", "room", "--", "--json")[2].startswith("Usage:")


@pytest.mark.parametrize("command", [("nodes",), ("send", "n", "a", "x"), ("serve", "--port", "0")])
def test_unreachable_redis_exits_with_3_without_its_password(command: tuple[str, ...]) -> None:
    """The address is named, the password is not."""
    status, out, said = run(*command, redis="redis://me:s3cret@127.0.0.1:1/0")
    assert (status, out) == (3, "")
    assert "redis://me:***@127.0.0.1:1/0" in said
    assert "s3cret" not in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (BackplaneUnavailableError("away"), 3),
        (InvalidValueError("no"), 2),
        (EmbeddedUnavailableError("not installed"), 2),
        (PoolClosedError("closed"), 1),
        (OSError("disk"), 1),
    ],
)
def test_errors_become_a_line_and_an_exit_status(
    error: Exception, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """They go to standard error; a bug is raised."""
    assert explain(error) == status
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", f"cluster-pool: {error}\n")
    with pytest.raises(ZeroDivisionError):
        explain(ZeroDivisionError())


def test_a_program_that_runs_commands_gets_each_record_once() -> None:
    """The library's logger has no handler of a command that has ended."""
    handlers = list(logging.getLogger("cluster_pool").handlers)
    for _ in range(2):
        with pytest.raises(typer.Exit):
            common.run(asyncio.sleep(0, 0))
    assert logging.getLogger("cluster_pool").handlers == handlers


def test_message_is_the_argument_or_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dash reads to the end; bytes that are no text need --binary."""
    for argument, binary, stdin, message in [
        ("hi", False, b"", "hi"),
        ("hi", True, b"", b"hi"),
        ("-", False, "bär\n".encode(), "bär\n"),
        ("-", True, b"\xff", b"\xff"),
    ]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        assert message_from(argument, binary) == message
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xff")))
    with pytest.raises(InvalidValueError, match="use --binary"):
        message_from("-", False)
