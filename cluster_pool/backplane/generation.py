"""One life of the sockets to Redis, as those see it whose commands must keep their order in it."""

import asyncio
from typing import Any

from cluster_pool.backplane.command_connection import CommandConnection, ScriptCall


class Generation:
    """What an operation is given that must be executed in this generation or not at all.

    Such an operation queues its command before it returns, so that Redis executes operations in
    the order of their calls. Once the generation has ended it sends nothing, and its reply raises
    BackplaneUnavailableError.
    """

    __slots__ = ("_commands",)

    def __init__(self, commands: CommandConnection) -> None:
        self._commands = commands

    @property
    def lasts(self) -> bool:
        """Whether its sockets still serve."""
        return not self._commands.failed

    def commands(self, key: str) -> CommandConnection:
        """The command connection to the Redis that has ``key``."""
        return self._commands

    def script(self, call: ScriptCall) -> asyncio.Future[Any]:
        """Queue one of our scripts where its keys are; its first key stands for all of them."""
        return self.commands(call.keys[0]).script(call)
