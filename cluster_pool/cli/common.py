"""What the commands share: options, errors as exit statuses, output for people and programs."""

import asyncio
import json
import os
import sys
from collections.abc import Coroutine
from typing import Annotated, Any

import typer

from cluster_pool.embedded import EmbeddedUnavailableError
from cluster_pool.exceptions import (
    BackplaneUnavailableError,
    ClusterPoolError,
    InvalidValueError,
)

DONE, NO, USAGE, NO_REDIS = 0, 1, 2, 3
INTERRUPTED, BROKEN_PIPE = 130, 141
"""What a shell says of a program that SIGINT or SIGPIPE has ended."""

NamespaceArgument = Annotated[
    str,
    typer.Argument(metavar="NAMESPACE", help="The group of connections.", show_default=False),
]
RedisOption = Annotated[
    str,
    typer.Option(
        "--redis",
        metavar="URL",
        envvar="CLUSTER_POOL_REDIS",
        help="Where Redis is: redis://, rediss:// or unix://; embedded, for serve and demo.",
    ),
]
PrefixOption = Annotated[
    str,
    typer.Option(
        "--prefix", envvar="CLUSTER_POOL_PREFIX", help="Of every key and channel of the cluster."
    ),
]
JsonOption = Annotated[
    bool,
    typer.Option(
        "--json", envvar="CLUSTER_POOL_JSON", help="One JSON object a line, and nothing else."
    ),
]
SecretOption = Annotated[
    list[str] | None,
    typer.Option(
        "--secret",
        envvar="CLUSTER_POOL_SECRET",
        help="What every node and publisher of the cluster knows, at least 16 bytes; repeatable "
        "(in the variable, separated by spaces): the first seals, each is accepted. Others can "
        "see a command line: better use the variable.",
        show_default=False,
    ),
]
TimeoutOption = Annotated[
    float,
    typer.Option(
        "--timeout", envvar="CLUSTER_POOL_TIMEOUT", help="Seconds for one operation.", min=0.001
    ),
]
DEFAULT_REDIS = "redis://localhost:6379/0"


def run(work: Coroutine[Any, Any, int]) -> None:
    """Run a command and exit with its status; errors of ours become a line and a status."""
    try:
        status = asyncio.run(work)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read our output has had enough (`… | head`), and the interpreter's own flush at
        # the exit must not complain about it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = BROKEN_PIPE
    except Exception as error:
        status = explain(error)
    except KeyboardInterrupt:
        status = INTERRUPTED
    raise typer.Exit(status)


def explain(error: Exception) -> int:
    """Say an error in one line on standard error, and give the exit status; raise what is a bug."""
    if isinstance(error, BackplaneUnavailableError):
        status = NO_REDIS
    elif isinstance(error, InvalidValueError | EmbeddedUnavailableError):
        status = USAGE
    elif isinstance(error, ClusterPoolError | OSError):
        status = NO
    else:
        raise error
    typer.echo(f"cluster-pool: {error}", err=True)
    return status


def say(as_json: bool, fields: dict[str, Any], text: str) -> None:
    """One result: a JSON object on a line, or a sentence."""
    typer.echo(json.dumps(fields, ensure_ascii=False) if as_json else text)


def message_from(argument: str, binary: bool) -> str | bytes:
    """The message that an argument means: ``-`` is standard input, to its end."""
    if argument != "-":
        return argument.encode("utf-8", "surrogateescape") if binary else argument
    raw = sys.stdin.buffer.read()
    if binary:
        return raw
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise InvalidValueError(f"standard input is not UTF-8 ({error}): use --binary") from None
