"""The command line: ``cluster-pool``. One file per group of commands."""

import io
import sys
from collections.abc import Callable

import typer

from cluster_pool import __version__
from cluster_pool.cli import demo, draining, joining, looking, sending, serving, watching
from cluster_pool.cli.common import DONE, complain, json_wanted
from cluster_pool.cli.environment import set_aside

STATUSES = """Exit status: 0 done; 1 the cluster said no (absent, refused, no node lives under the
prefix); 2 usage; 3 Redis cannot be reached; 130 interrupted. Results go to standard output, a line
each, everything else to standard error. With --json each line of both is a JSON object: a result,
{"error": TEXT, "status": NUMBER} or {"note": TEXT}, but for the log of serve."""

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Long-lived WebSocket connections on many nodes. Every command takes --redis URL.",
    epilog=STATUSES,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"cluster-pool {__version__}")
        raise typer.Exit


@app.callback()
def _program(
    context: typer.Context,
    version: bool = typer.Option(
        False, "--version", help="Print the version and exit.", callback=_version, is_eager=True
    ),
) -> None:
    """Long-lived WebSocket connections on many nodes. Every command takes --redis URL."""
    context.obj = set_aside()  # before a command reads its variables


COMMANDS: tuple[tuple[str, Callable[..., None], str], ...] = (
    ("serve", serving.serve, "Run a node for WebSocket clients."),
    ("demo", demo.demo, "See a cluster used, hurt and stopped."),
    ("send", sending.send, "Send a message to one member."),
    ("broadcast", sending.broadcast, "Send a message to a whole namespace."),
    ("close", sending.close, "Close members' connections."),
    ("close-user", sending.close_user, "Close all connections of a user."),
    ("revoke", sending.revoke, "Revoke a token, and close its connections."),
    ("join", joining.join, "Have a connection join a namespace."),
    ("leave", joining.leave, "Have a connection leave a namespace."),
    ("members", looking.members, "List the members of a namespace."),
    ("count", looking.count, "Print how many members there are."),
    ("locate", looking.locate, "Print the node that owns an id."),
    ("namespaces", looking.namespaces, "List the namespaces."),
    ("watch", watching.watch, "Print joins and leaves as they happen."),
    ("nodes", looking.nodes, "List the live nodes."),
    ("drain", draining.drain, "Close the connections of nodes at a pace."),
    ("drains", looking.drains, "List the drains under way."),
    ("activate", draining.activate, "Have drained nodes take newcomers."),
    ("budget", draining.budget, "Show or set what drains may close."),
)
for name, command, summary in COMMANDS:
    app.command(name, short_help=summary)(command)


def main() -> None:
    """Run the command line; the process exits with one of the statuses above."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name may have letters that the locale has not
            stream.reconfigure(errors="backslashreplace")
    if json_wanted():
        sys.exit(_run_with_json_errors())
    app()


def _run_with_json_errors() -> int:
    try:
        return app(standalone_mode=False) or DONE
    except Exception as error:
        if not hasattr(error, "format_message"):  # typer's own have it, whatever their class
            raise
        status: int = getattr(error, "exit_code", 2)
        complain(error.format_message(), status)
        return status
