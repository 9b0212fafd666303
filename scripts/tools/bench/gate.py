"""A pipe over which clients tell a sender, in one byte, that everything has arrived.

The sender then knows that nothing is in flight, at the price of one wake-up per round. Needs the
standard library alone.
"""

import asyncio
import os


class Gate:
    """Both ends, made by who starts the programs."""

    def __init__(self) -> None:
        self.read_end, self.write_end = os.pipe()

    def close(self) -> None:
        """Close both ends here; the programs have their own."""
        os.close(self.read_end)
        os.close(self.write_end)


class Opened:
    """In an asyncio program: the reading end of a :class:`Gate`."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._event = asyncio.Event()
        self._ended = False
        os.set_blocking(descriptor, False)
        asyncio.get_running_loop().add_reader(descriptor, self._read)

    def _read(self) -> None:
        if not os.read(self._descriptor, 1):
            self._ended = True
            asyncio.get_running_loop().remove_reader(self._descriptor)
        self._event.set()

    async def wait(self, timeout: float) -> bool:
        """Wait for the next byte; False when none came in time, or none will."""
        try:
            async with asyncio.timeout(timeout):
                await self._event.wait()
        except TimeoutError:
            return False
        self._event.clear()
        return not self._ended
