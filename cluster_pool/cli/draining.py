"""``drain``, ``activate`` and ``budget``: give orders to nodes, which carry them out themselves."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated

import typer

from cluster_pool.cli.common import (
    DEFAULT_REDIS,
    DONE,
    NO,
    JsonOption,
    PrefixOption,
    RedisOption,
    SecretOption,
    TimeoutOption,
    complain,
    publisher_of,
    run,
    say,
)
from cluster_pool.cli.progress import follow
from cluster_pool.core.config import check_above_zero
from cluster_pool.core.ids import check_node_id
from cluster_pool.core.keys import DEFAULT_PREFIX
from cluster_pool.core.results import Node, NodeState
from cluster_pool.exceptions import (
    ClusterPoolError,
    DrainRefusedError,
    InvalidValueError,
    NodeUnreachableError,
)
from cluster_pool.publisher import Publisher

ACCEPTING = (NodeState.ACTIVE, NodeState.STARTING)

NodesArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="NODE", help="Node ids; see 'nodes'.", show_default=False),
]
AllOption = Annotated[bool, typer.Option("--all", help="Every live node.")]


def drain(
    nodes: NodesArgument = None,
    everyone: AllOption = False,
    rate: Annotated[
        float | None,
        typer.Option(
            "--rate",
            help="Closes per second of the whole cluster. (default: 70 % of what the nodes that "
            "take newcomers can take)",
        ),
    ] = None,
    grace: Annotated[
        float | None,
        typer.Option(
            "--grace",
            help="Seconds until everyone must be closed; the rate is raised as far as that needs. "
            "(default: as long as it takes)",
        ),
    ] = None,
    announce: Annotated[
        float | None,
        typer.Option(
            "--announce",
            help="Seconds during which /readyz says 503 and newcomers are still welcome. "
            "(default: 5, or a quarter of the grace)",
            min=0,
        ),
    ] = None,
    message: Annotated[
        str,
        typer.Option("--message", help="Sent to each ahead of its close."),
    ] = "",
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Also when no other live node takes newcomers and there is no --grace.",
        ),
    ] = False,
    pause: Annotated[bool, typer.Option("--pause", help="Close nobody for a while.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on after --pause.")] = False,
    cancel: Annotated[
        bool, typer.Option("--cancel", help="End the drain half-way; the node is active again.")
    ] = False,
    detach: Annotated[
        bool,
        typer.Option(
            "--detach",
            help="Return when the nodes have begun; they carry on in any case.",
        ),
    ] = False,
    redis: RedisOption = DEFAULT_REDIS,
    prefix: PrefixOption = DEFAULT_PREFIX,
    secret: SecretOption = None,
    timeout: TimeoutOption = 2.0,
    as_json: JsonOption = False,
) -> None:
    """Close the connections of nodes at a pace that they share, and show how it goes.

    0: all are drained; 1: a node refused, is not there, or was activated meanwhile. Interrupting
    the command does not stop the nodes: --cancel does.
    """

    async def work() -> int:
        _check_names(nodes, everyone)
        asked = {"pause": pause, "resume": resume, "cancel": cancel}
        verbs = [verb for verb, on in asked.items() if on]
        if len(verbs) > 1:
            raise InvalidValueError("--pause, --resume and --cancel exclude each other")
        for name, value in (("--rate", rate), ("--grace", grace)):
            if value is not None:
                check_above_zero(name, value)
        async with publisher_of(redis, prefix, secret, timeout) as publisher:
            targets = await _targets(publisher, nodes, everyone)
            if verbs:
                return await _tell_all(targets, _order(publisher, verbs[0]), verbs[0], as_json)
            if grace is None and not force:
                _refuse_without_acceptors(targets, await publisher.nodes())

            def begin(node: str) -> Awaitable[None]:
                return publisher.drain_node(
                    node, rate, message, grace=grace, announce=announce, force=force
                )

            status = await _tell_all(targets, begin, "drain", as_json, quiet=not detach)
            if detach or status != DONE:
                return status
            return await follow(publisher, targets, as_json)

    run(work())


def activate(
    nodes: NodesArgument = None,
    everyone: AllOption = False,
    redis: RedisOption = DEFAULT_REDIS,
    prefix: PrefixOption = DEFAULT_PREFIX,
    secret: SecretOption = None,
    timeout: TimeoutOption = 2.0,
    as_json: JsonOption = False,
) -> None:
    """Have drained nodes take newcomers again: 0 all do, 1 some do not."""

    async def work() -> int:
        _check_names(nodes, everyone)
        async with publisher_of(redis, prefix, secret, timeout) as publisher:
            targets = await _targets(publisher, nodes, everyone)
            return await _tell_all(targets, _order(publisher, "activate"), "activate", as_json)

    run(work())


def budget(
    rate: Annotated[
        str | None,
        typer.Argument(
            metavar="[RATE]",
            help="Closes per second of all drains together; 'none' takes it back.",
            show_default=False,
        ),
    ] = None,
    redis: RedisOption = DEFAULT_REDIS,
    prefix: PrefixOption = DEFAULT_PREFIX,
    timeout: TimeoutOption = 2.0,
    as_json: JsonOption = False,
) -> None:
    """Show or set what the drains of this cluster may close per second, those under way too."""

    async def work() -> int:
        wanted = None if rate in (None, "none") else _number(rate)
        async with Publisher(redis, prefix=prefix, timeout=timeout) as publisher:
            if rate is not None:
                await publisher.set_drain_budget(wanted)
            allowed = await publisher.drain_budget()
        text = "70 % of what the nodes that take newcomers can take"
        say(as_json, {"budget": allowed}, text if allowed is None else f"{allowed:g} a second")
        return DONE

    run(work())


def _number(text: str | None) -> float:
    try:
        return check_above_zero("RATE", float(text or ""))
    except ValueError:
        raise InvalidValueError(f"RATE must be a number above 0, or none, not {text!r}") from None


def _check_names(nodes: list[str] | None, everyone: bool) -> None:
    if bool(nodes) == everyone:
        raise InvalidValueError("name nodes, or --all, and not both")
    for node in nodes or ():
        check_node_id(node)


async def _targets(publisher: Publisher, nodes: list[str] | None, everyone: bool) -> list[str]:
    """Return the nodes that are meant; raise NodeUnreachableError for one that is not alive."""
    living = [node.id for node in await publisher.nodes()]
    if not living:
        raise ClusterPoolError("no node is alive")
    for node in nodes or ():
        if node not in living:
            raise NodeUnreachableError(node, f"is not alive; alive are: {', '.join(living)}")
    return living if everyone else list(dict.fromkeys(nodes or ()))


def _refuse_without_acceptors(targets: Sequence[str], nodes: Sequence[Node]) -> None:
    if not any(node.state in ACCEPTING and node.id not in targets for node in nodes):
        raise DrainRefusedError(
            targets[0],
            "no other live node would take the clients: set a --grace, or --force it",
        )


def _order(publisher: Publisher, verb: str) -> Callable[[str], Awaitable[None]]:
    return {
        "pause": publisher.pause_drain,
        "resume": publisher.resume_drain,
        "cancel": publisher.cancel_drain,
        "activate": publisher.activate,
    }[verb]


async def _tell_all(
    targets: Sequence[str],
    tell: Callable[[str], Awaitable[None]],
    verb: str,
    as_json: bool,
    *,
    quiet: bool = False,
) -> int:
    """Send the order to all nodes concurrently, and return DONE if every one obeys."""

    async def one(node: str) -> str:
        try:
            await tell(node)
        except (DrainRefusedError, NodeUnreachableError) as error:
            return str(error)
        return ""

    status = DONE
    for node, refusal in zip(targets, await asyncio.gather(*map(one, targets)), strict=True):
        if refusal:
            status = NO
            complain(refusal, NO)
        elif not quiet:
            say(as_json, {"node": node, "result": verb}, f"{node}: {verb}")
    return status
