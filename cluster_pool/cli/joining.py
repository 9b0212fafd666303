"""``join`` and ``leave``: memberships of a connection beside its home."""

from typing import Annotated

import typer

from cluster_pool.cli.common import (
    DEFAULT_REDIS,
    DONE,
    NO,
    IdArgument,
    JsonOption,
    NamespaceArgument,
    PrefixOption,
    RedisOption,
    SecretOption,
    TimeoutOption,
    publisher_of,
    run,
    say,
)
from cluster_pool.core.keys import DEFAULT_PREFIX
from cluster_pool.core.results import SendResult

OtherArgument = Annotated[
    str,
    typer.Argument(metavar="OTHER", help="The namespace to join or leave.", show_default=False),
]


def join(
    namespace: NamespaceArgument,
    id: IdArgument,
    other: OtherArgument,
    as_id: Annotated[
        str | None,
        typer.Option("--as", metavar="ID", help="The id there, if not that of the connection."),
    ] = None,
    on_conflict: Annotated[
        str | None,
        typer.Option(
            "--on-conflict", help="takeover or reject; by default the rule of the member's node."
        ),
    ] = None,
    redis: RedisOption = DEFAULT_REDIS,
    prefix: PrefixOption = DEFAULT_PREFIX,
    secret: SecretOption = None,
    timeout: TimeoutOption = 2.0,
    as_json: JsonOption = False,
) -> None:
    """Have a member's connection join another namespace: 0 it has joined, 1 it has not."""

    async def work() -> int:
        async with publisher_of(redis, prefix, secret, timeout) as publisher:
            result = await publisher.join(
                namespace, id, other, as_id=as_id, on_conflict=on_conflict
            )
        return _told(as_json, result)

    run(work())


def leave(
    namespace: NamespaceArgument,
    id: IdArgument,
    other: OtherArgument,
    redis: RedisOption = DEFAULT_REDIS,
    prefix: PrefixOption = DEFAULT_PREFIX,
    secret: SecretOption = None,
    timeout: TimeoutOption = 2.0,
    as_json: JsonOption = False,
) -> None:
    """Have a member's connection leave a namespace: 0 it has left, 1 it has not."""

    async def work() -> int:
        async with publisher_of(redis, prefix, secret, timeout) as publisher:
            result = await publisher.leave(namespace, id, other)
        return _told(as_json, result)

    run(work())


def _told(as_json: bool, result: SendResult) -> int:
    """Print the answer of the member's node; the exit status."""
    say(as_json, {"result": result.value}, result.value)
    return DONE if result else NO
