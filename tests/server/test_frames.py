"""The queue of unread frames: it joins parts, counts bytes, and frees taken ones."""

import asyncio

import pytest
from websockets.frames import BINARY, CONT, TEXT, Frame

from cluster_pool.server.frames import LARGE, PART, Frames
from tests.support import async_test


@async_test
async def test_parts_of_a_message_are_queued_as_one_frame() -> None:
    """Small parts are not counted as frames; nothing is queued before the last part."""
    frames = Frames(lambda: None)
    frames.put(Frame(TEXT, b"a", fin=False))
    frames.put(Frame(CONT, b"b" * PART, fin=False))
    assert (len(frames.queue), frames.size, frames.counted) == (0, 0, 1)
    frames.put(Frame(CONT, b"c"))
    assert (len(frames.queue), frames.size, frames.counted) == (1, PART + 2, 2)
    whole = await frames.get()
    assert (whole.opcode, bytes(whole.data), whole.fin) == (
        TEXT,
        b"a" + b"b" * PART + b"c",
        True,
    )
    assert (frames.size, frames.partial) == (0, None)


@async_test
async def test_taking_the_last_frame_and_waiting_for_one_are_reported() -> None:
    """While reading is paused every taken frame is reported, so that it can go on soon."""
    told: list[int] = []
    frames = Frames(lambda: told.append(frames.size))
    for _ in range(3):
        frames.put(Frame(BINARY, b"12"))
    await frames.get()
    assert told == []
    frames.paused = True
    await frames.get()
    assert told == [2]
    frames.paused = False
    await frames.get()
    assert told == [2, 0]
    waiting = asyncio.create_task(frames.get())
    await asyncio.sleep(0)
    assert told == [2, 0, 0]
    frames.put(Frame(BINARY, b"late"))
    assert (await waiting).data == b"late"


@async_test
async def test_large_payload_is_freed_after_its_message_was_made() -> None:
    """Small ones are left alone."""
    frames = Frames(lambda: None)
    frames.put(Frame(BINARY, b"x" * (LARGE + 1)))
    frames.put(Frame(BINARY, b"x" * LARGE))
    large, small = await frames.get(), await frames.get()
    assert len(large.data) == LARGE + 1
    await asyncio.sleep(0)
    assert (large.data, len(small.data)) == (b"", LARGE)


@async_test
async def test_frames_that_are_put_back_come_first_and_are_counted() -> None:
    """An empty queue raises at once in the call that must not wait."""
    frames = Frames(lambda: None)
    frames.put(Frame(TEXT, b"second"))
    frames.put_back([Frame(TEXT, b"first")])
    assert frames.size == len(b"first" + b"second")
    assert [(await frames.get()).data, (await frames.get()).data] == [b"first", b"second"]
    with pytest.raises(EOFError):
        await frames.get(block=False)
