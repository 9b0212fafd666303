"""``send``, ``broadcast``, ``close`` and ``close-user``."""

from dataclasses import asdict
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
    message_from,
    publisher_of,
    run,
    say,
)
from cluster_pool.cluster.revoking import check_until
from cluster_pool.core.closing import check_close
from cluster_pool.core.ids import check_id, check_namespace, check_token_id, check_user
from cluster_pool.core.keys import DEFAULT_PREFIX
from cluster_pool.core.results import BroadcastReport
from cluster_pool.exceptions import InvalidValueError

MessageArgument = Annotated[
    str,
    typer.Argument(
        metavar="MESSAGE", help="The message; - reads standard input.", show_default=False
    ),
]
Binary = Annotated[
    bool,
    typer.Option("--binary", help="Send a binary message, not text."),
]
Confirm = Annotated[
    bool,
    typer.Option(
        "--confirm",
        help="Wait for the word of the node that owns the id.",
    ),
]

ConfirmClient = Annotated[
    bool,
    typer.Option(
        "--confirm-client",
        help="Wait until the client's WebSocket stack has it: received.",
    ),
]

ConfirmAll = Annotated[
    bool,
    typer.Option(
        "--confirm",
        help="Wait for the word of every node that heard it: how many connections got it.",
    ),
]

ConfirmClients = Annotated[
    bool,
    typer.Option(
        "--confirm-client",
        help="Wait also until the clients' WebSocket stacks have it, within the timeout.",
    ),
]


def send(
    namespace: NamespaceArgument,
    id: IdArgument,
    message: MessageArgument,
    binary: Binary = False,
    confirm: Confirm = False,
    confirm_client: ConfirmClient = False,
    redis: RedisOption = DEFAULT_REDIS,
    prefix: PrefixOption = DEFAULT_PREFIX,
    secret: SecretOption = None,
    timeout: TimeoutOption = 2.0,
    as_json: JsonOption = False,
) -> None:
    """Send one message to one member, and say what happened: 0 delivered or better, 1 not."""

    async def work() -> int:
        check_namespace(namespace)
        check_id(id)
        content = message_from(message, binary)
        async with publisher_of(redis, prefix, secret, timeout) as publisher:
            result = await publisher.send(
                namespace, id, content, confirm="client" if confirm_client else confirm
            )
        say(as_json, {"result": result.value}, result.value)
        return DONE if result else NO

    run(work())


def broadcast(
    namespace: NamespaceArgument,
    message: MessageArgument,
    binary: Binary = False,
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            "--exclude",
            metavar="ID",
            help="An id that does not get it; repeatable (in the variable, separated by spaces).",
        ),
    ] = None,
    confirm: ConfirmAll = False,
    confirm_client: ConfirmClients = False,
    redis: RedisOption = DEFAULT_REDIS,
    prefix: PrefixOption = DEFAULT_PREFIX,
    secret: SecretOption = None,
    timeout: TimeoutOption = 2.0,
    as_json: JsonOption = False,
) -> None:
    """Send one message to every member of a namespace: 0 some node heard it, 1 none did.

    With --confirm, 0 some member got it, 1 none did.
    """

    async def work() -> int:
        check_namespace(namespace)
        content = message_from(message, binary)
        async with publisher_of(redis, prefix, secret, timeout) as publisher:
            if confirm or confirm_client:
                report = await publisher.broadcast_message(
                    namespace, content, exclude or (), confirm="client" if confirm_client else True
                )
                say(as_json, asdict(report), _account(report))
                return DONE if report else NO
            nodes = await publisher.broadcast_message(namespace, content, exclude or ())
        say(as_json, {"nodes": nodes}, f"handed to {_nodes(nodes)}")
        return DONE if nodes else NO

    run(work())


def _account(report: BroadcastReport) -> str:
    """One line about a broadcast: where it went, and what did not."""
    received = f", received by {report.received}" if report.received else ""
    parts = {"refused": report.refused, "timed out": report.timed_out}
    rest = "".join(f", {number} {name}" for name, number in parts.items() if number)
    silent = f", {_nodes(report.silent)} silent" if report.silent else ""
    to = f"delivered to {report.delivered}{received}{rest}"
    return f"{to}, on {_nodes(report.nodes)}{silent}"


def _nodes(number: int) -> str:
    return f"{number} node{'' if number == 1 else 's'}"


Code = Annotated[int, typer.Option("--code", help="The close code.")]
Reason = Annotated[str, typer.Option("--reason", help="At most 123 bytes.")]


def close(
    namespace: NamespaceArgument,
    ids: Annotated[
        list[str] | None, typer.Argument(metavar="ID", help="Members.", show_default=False)
    ] = None,
    everyone: Annotated[bool, typer.Option("--all", help="Every member.")] = False,
    code: Code = 1000,
    reason: Reason = "",
    redis: RedisOption = DEFAULT_REDIS,
    prefix: PrefixOption = DEFAULT_PREFIX,
    secret: SecretOption = None,
    timeout: TimeoutOption = 2.0,
    as_json: JsonOption = False,
) -> None:
    """Close members' connections: 0 all were told, 1 some were not there."""

    async def work() -> int:
        if bool(ids) == everyone:
            raise InvalidValueError("close needs ids, or --all, and not both")
        check_namespace(namespace)
        check_close(code, reason)
        for id in ids or ():
            check_id(id)
        async with publisher_of(redis, prefix, secret, timeout) as publisher:
            if everyone:
                nodes = await publisher.close_all(namespace, code, reason)
                return _told(as_json, nodes)
            missing = 0
            for id in ids or ():
                result = await publisher.close(namespace, id, code, reason, confirm=True)
                missing += not result
                say(as_json, {"id": id, "result": result.value}, f"{id}: {result.value}")
            return NO if missing else DONE

    run(work())


def close_user(
    user: Annotated[str, typer.Argument(metavar="USER", help="The user.", show_default=False)],
    code: Code = 1000,
    reason: Reason = "",
    redis: RedisOption = DEFAULT_REDIS,
    prefix: PrefixOption = DEFAULT_PREFIX,
    secret: SecretOption = None,
    timeout: TimeoutOption = 2.0,
    as_json: JsonOption = False,
) -> None:
    """Close all connections of a user: 0 some node heard it, 1 none did."""

    async def work() -> int:
        check_user(user)
        check_close(code, reason)
        async with publisher_of(redis, prefix, secret, timeout) as publisher:
            nodes = await publisher.close_user(user, code, reason)
        return _told(as_json, nodes)

    run(work())


def revoke(
    token_id: Annotated[
        str,
        typer.Argument(
            metavar="TOKEN_ID",
            help="The jti of the token, or the SHA-256 of its text in hex.",
            show_default=False,
        ),
    ],
    until: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            help="Seconds since 1970 for how long it is revoked: until it expires. Default: for 24 "
            "hours.",
            show_default=False,
        ),
    ] = None,
    redis: RedisOption = DEFAULT_REDIS,
    prefix: PrefixOption = DEFAULT_PREFIX,
    secret: SecretOption = None,
    timeout: TimeoutOption = 2.0,
    as_json: JsonOption = False,
) -> None:
    """Revoke a token, and close its connections with 4401; 0 when it is recorded."""

    async def work() -> int:
        check_token_id(token_id)
        if until is not None:
            check_until(until)
        async with publisher_of(redis, prefix, secret, timeout) as publisher:
            _told(as_json, await publisher.revoke(token_id, until))
        return DONE

    run(work())


def _told(as_json: bool, nodes: int) -> int:
    say(as_json, {"nodes": nodes}, f"told {_nodes(nodes)}")
    return DONE if nodes else NO
