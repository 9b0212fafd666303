"""Shared by the commands: options, errors as exit statuses, output for people and programs."""

import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import Coroutine, Iterator
from typing import Annotated, Any

import typer

from cluster_pool.cli.logs import json_text
from cluster_pool.core.results import Member, MemberEvent
from cluster_pool.embedded import EmbeddedUnavailableError
from cluster_pool.exceptions import (
    BackplaneUnavailableError,
    ClusterPoolError,
    InvalidValueError,
)
from cluster_pool.publisher import Publisher

DONE, NO, USAGE, NO_REDIS = 0, 1, 2, 3
INTERRUPTED, BROKEN_PIPE = 130, 141
"""The statuses that shells report for a program that SIGINT or SIGPIPE has ended."""

JSON_VARIABLE = "CLUSTER_POOL_JSON"
LOG_FORMAT_VARIABLE = "CLUSTER_POOL_LOG_FORMAT"
_TRUE = ("1", "true", "t", "yes", "y", "on")

NamespaceArgument = Annotated[
    str,
    typer.Argument(metavar="NAMESPACE", help="The group of connections.", show_default=False),
]
IdArgument = Annotated[str, typer.Argument(metavar="ID", help="The member.", show_default=False)]
RedisOption = Annotated[
    str,
    typer.Option(
        "--redis",
        metavar="URL",
        envvar="CLUSTER_POOL_REDIS",
        help="Where Redis is: redis:// or, with TLS, rediss://HOST:PORT; unix://PATH; "
        "redis+sentinel://HOST:PORT,HOST:PORT/SERVICE; redis+cluster://HOST:PORT,HOST:PORT; "
        "embedded or embedded-cluster, for serve and demo.",
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
        "--json",
        envvar=JSON_VARIABLE,
        help="One JSON object a line, and nothing else; errors likewise, on standard error.",
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
    """Run a command and exit with its status; the library's errors become a line and a status.

    Log records of the library meanwhile (that Redis is away during a ``watch``, say) become notes.
    """
    try:
        with _notes():
            status = asyncio.run(work)
        if sys.stdout is not None:  # as under `>&-`
            sys.stdout.flush()
    except BrokenPipeError:
        # The reader of the output has ended (`… | head`). Without this the interpreter's own flush
        # at the exit would print an error about it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = BROKEN_PIPE
    except Exception as error:
        status = explain(error)
    except KeyboardInterrupt:
        status = INTERRUPTED
    raise typer.Exit(status)


def explain(error: Exception) -> int:
    """Print an error in one line on standard error and return the exit status; reraise bugs."""
    if isinstance(error, BackplaneUnavailableError):
        status = NO_REDIS
    elif isinstance(error, InvalidValueError | EmbeddedUnavailableError):
        status = USAGE
    elif isinstance(error, ClusterPoolError | OSError):
        status = NO
    else:
        raise error
    complain(str(error), status)
    return status


def json_wanted() -> bool:
    """Whether errors are to be JSON: with ``--json``, and where the log is JSON.

    It reads the command line itself, since errors of one that cannot be parsed are JSON, too.
    """
    arguments = sys.argv[1:]
    options = arguments[: arguments.index("--")] if "--" in arguments else arguments
    if "--json" in options or os.environ.get(JSON_VARIABLE, "").lower() in _TRUE:
        return True
    said = " ".join(options).replace("--log-format=", "--log-format ")
    if "--log-format " in f"{said} ":
        return "--log-format json" in said
    return "serve" in options and os.environ.get(LOG_FORMAT_VARIABLE) == "json"


def say(as_json: bool, fields: dict[str, Any], text: str) -> None:
    """Print one result on standard output: a JSON object on a line, or a sentence."""
    typer.echo(json_text(fields, sys.stdout) if as_json else text)


def profile_fields(member: Member | MemberEvent) -> dict[str, Any]:
    """The user and the info of a member for a line of JSON, as far as it has them."""
    profile = {"user": member.user, "info": member.info}
    return {name: value for name, value in profile.items() if value is not None}


def note(text: str) -> None:
    """Print information for a person, beside the results, on standard error."""
    _say_beside({"note": text}, text)


def complain(text: str, status: int) -> None:
    """Print an error on standard error, so that standard output holds results alone."""
    _say_beside({"error": text, "status": status}, text)


@contextlib.contextmanager
def _notes() -> Iterator[None]:
    """Log records of the library become notes, for as long as a command runs."""
    library, handler = logging.getLogger("cluster_pool"), _Notes(logging.WARNING)
    library.addHandler(handler)
    try:
        yield
    finally:
        library.removeHandler(handler)


class _Notes(logging.Handler):
    """Prints each log record as a note."""

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        note(record.getMessage() if error is None else f"{record.getMessage()}: {error!r}")


def _say_beside(fields: dict[str, Any], text: str) -> None:
    line = json_text(fields, sys.stderr) if json_wanted() else f"cluster-pool: {text}"
    typer.echo(line, err=True)


def publisher_of(redis: str, prefix: str, secret: list[str] | None, timeout: float) -> Publisher:
    """The publisher that the options of a command name; not started."""
    return Publisher(redis, prefix=prefix, secret=secret or None, timeout=timeout)


def message_from(argument: str, binary: bool) -> str | bytes:
    """Return the message of an argument; ``-`` reads standard input to its end."""
    if argument != "-":
        return argument.encode("utf-8", "surrogateescape") if binary else argument
    raw = sys.stdin.buffer.read()
    if binary:
        return raw
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise InvalidValueError(f"standard input is not UTF-8 ({error}): use --binary") from None
