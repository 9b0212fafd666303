"""The gate by which clients tell a sender that all has arrived."""

import asyncio
import os

from tools.bench.gate import Opened


async def _waits(data: bytes, times: int) -> list[bool]:
    read_end, write_end = os.pipe()
    opened = Opened(read_end)
    waiting = asyncio.create_task(opened.wait(5))
    await asyncio.sleep(0)
    os.write(write_end, data)
    found = [await waiting]
    os.close(write_end)
    found += [await opened.wait(5) for _ in range(times - 1)]
    asyncio.get_running_loop().remove_reader(read_end)
    os.close(read_end)
    return found


def test_a_gate_opens_once_for_each_byte_and_never_after_its_end() -> None:
    """A process that waits for clients that are gone is told at once."""
    assert asyncio.run(_waits(b".", 2)) == [True, False]
