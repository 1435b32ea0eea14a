import asyncio
import os

import pytest

from userspace_proxy.cli.stdout_writer import write_stdout


@pytest.fixture
def pipe():
    reader, writer = os.pipe()
    yield reader, writer
    for descriptor in (reader, writer):
        try:
            os.close(descriptor)
        except OSError:
            continue


async def test_a_text_is_written_whole_although_the_reader_is_slow(pipe):
    reader, writer = pipe
    text = "x" * 300_000
    writing = asyncio.create_task(write_stdout(text, writer))
    read = b""
    while len(read) < len(text):
        read += await asyncio.to_thread(os.read, reader, 65536)
    await writing
    assert read.decode() == text


async def test_the_loop_goes_on_while_nothing_reads(pipe):
    reader, writer = pipe
    writing = asyncio.create_task(write_stdout("x" * 300_000, writer))
    done, _ = await asyncio.wait([writing], timeout=0.05)
    assert not done
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    # The thread goes on, and what it reports then is not wanted any more.
    left = 300_000
    while left:
        left -= len(await asyncio.to_thread(os.read, reader, 65536))
    assert not left


async def test_a_reader_that_is_gone_is_an_error(pipe):
    reader, writer = pipe
    os.close(reader)
    with pytest.raises(BrokenPipeError):
        await write_stdout("x\n", writer)


def test_a_write_that_outlives_the_loop_disturbs_nothing(pipe):
    reader, writer = pipe

    async def main():
        writing = asyncio.create_task(write_stdout("x" * 300_000, writer))
        await asyncio.wait([writing], timeout=0.01)
        writing.cancel()

    asyncio.run(main())
    left = 300_000
    while left:
        left -= len(os.read(reader, 65536))
    assert not left
