"""The command line: ``cluster-pool``. One file per group of commands."""

import typer

from cluster_pool import __version__
from cluster_pool.cli import demo, draining, looking, sending, serving

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Long-lived WebSocket connections on many nodes. Every command takes --redis URL.",
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"cluster-pool {__version__}")
        raise typer.Exit


@app.callback()
def _program(
    version: bool = typer.Option(
        False, "--version", help="Print the version and exit.", callback=_version, is_eager=True
    ),
) -> None:
    """Long-lived WebSocket connections on many nodes. Every command takes --redis URL."""


app.command("serve")(serving.serve)
app.command("demo")(demo.demo)
app.command("send")(sending.send)
app.command("broadcast")(sending.broadcast)
app.command("close")(sending.close)
app.command("members")(looking.members)
app.command("nodes")(looking.nodes)
app.command("drain")(draining.drain)
app.command("activate")(draining.activate)
app.command("budget")(draining.budget)


def main() -> None:
    """Run the command line; the process exits with 0, 1, 2 or 3."""
    app()
