"""One node of a contender as a process: it serves WebSockets and sends what it is told to.

Run as ``python -m tools.contenders.program MODULE LOOP TUNED REDIS [GATE]``. With the end of a gate
it answers the commands of :class:`tools.bench.sender.Sender`, too.
"""

import asyncio
import importlib
import logging
import os
import sys

from tools.bench.gate import Opened
from tools.bench.sender import Sender, each_alone
from tools.contenders.streams import Streams
from tools.harness.internals import loop_factory
from tools.harness.obeying import answer, obey_object


async def main(module: str, tuned: str, redis: str, gate: str = "") -> None:
    """Run until standard input ends; what libraries log of bad links is no news here.

    It ends without goodbyes: those to a thousand clients are not measured, slow and loud.
    """
    logging.getLogger().addHandler(logging.NullHandler())
    contender = importlib.import_module(f"tools.contenders.{module}")
    async with contender.served(redis, tuned=bool(tuned)) as node:
        commands: list[object] = [Streams(node)]
        if gate:
            commands.append(Sender(*each_alone(node.to_all, node.to_one), Opened(int(gate))))
        answer({"port": node.port})
        await obey_object(*commands)
        os._exit(0)


if __name__ == "__main__":
    _, module_name, loop, *arguments = sys.argv
    with asyncio.Runner(loop_factory=loop_factory(loop)) as runner:
        runner.run(main(module_name, *arguments))
