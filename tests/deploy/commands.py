"""Reads the commands that files of ``deploy/`` start, with the real command line's own parser."""

import os
from collections.abc import Mapping, Sequence
from typing import Any
from unittest.mock import patch

import typer

from cluster_pool.cli import app
from cluster_pool.cluster.stopping import GRACE

ROOM = 5
"""Seconds between the end of a drain and the SIGKILL of an orchestrator; see docs/draining.md."""


def settings_of(words: Sequence[str], environment: Mapping[str, str]) -> dict[str, Any]:
    """The settings of a ``cluster-pool serve …``, by the names of their parameters.

    Args:
        words: of the command line, from ``serve`` on.
        environment: the variables that the file sets, those of other programs among them.

    Raises:
        A usage error of the command line, or AssertionError for a variable that nothing reads.
    """
    name, *options = words
    assert name == "serve"
    command = typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]
    read = {parameter.envvar for parameter in command.params}
    ours = {one: value for one, value in environment.items() if one.startswith("CLUSTER_POOL_")}
    assert set(ours) <= read, f"nothing reads {set(ours) - read}"
    with patch.dict(os.environ, ours):
        settings: dict[str, Any] = command.make_context(name, list(options)).params
    return settings


def time_to_stop(settings: Mapping[str, Any]) -> float:
    """Seconds that an orchestrator must wait between SIGTERM and SIGKILL, at least."""
    return float(settings["grace"] or GRACE) + ROOM
