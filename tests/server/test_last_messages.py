"""Messages that were called delivered at the moment of a client's end, in a real process."""

import asyncio
import random
from pathlib import Path

import pytest

from tests.servers import BINARIES, RedisServer
from tests.stubborn import stubborn
from tests.support import async_test, eventually
from tests.transports.frames import CLOSE, TEXT, read_messages
from tools.harness.frames import masked
from tools.harness.nodes import NodeProcess

pytestmark = pytest.mark.real

ENDS = {
    "close": masked(CLOSE, (4000).to_bytes(2, "big")),
    "large": b"\x82\xff" + (2**40).to_bytes(8, "big") + bytes(4),
    "noframe": b"\xff\x80" + bytes(4),
    "eof": b"",
}
PUMP = """
import asyncio
from pathlib import Path

async def pump(pool, connection):
    count = 0
    while await pool.send(connection.namespace, connection.id, str(count)):
        count += 1
        Path(connection.id).write_text(str(count))
        await asyncio.sleep(0)
"""


@pytest.mark.parametrize("options", [(), ("--compression",)], ids=["plain", "compression"])
@async_test
async def test_messages_that_count_as_delivered_are_written_ahead_of_the_end(
    options: tuple[str, ...], tmp_path: Path
) -> None:
    """The client reads on: it ends the stream, closes, or breaks the protocol at any moment."""
    (tmp_path / "pump_app.py").write_text(PUMP)
    with (
        RedisServer(next(iter(BINARIES))) as redis,
        NodeProcess(redis.url, "--app", "pump_app:pump", *options, folder=tmp_path) as node,
    ):
        for name, last in ENDS.items():
            for number in range(5):
                id = f"{name}{number}"
                async with stubborn(node.url("n", id)) as client:
                    await eventually(lambda client=client: len(client.heard) > 100)
                    await asyncio.sleep(random.random() / 50)
                    client.writer.write(last) if last else client.writer.write_eof()
                    await eventually(lambda client=client: client.ended)
                    await asyncio.sleep(0.1)  # the app notices it
                heard = sum(opcode == TEXT for opcode, _ in read_messages(client.heard))
                assert heard == int((tmp_path / id).read_text()), name
