import asyncio
import contextlib
import fcntl
import os
import socket
import subprocess
import sys
import threading

import pytest

from userspace_proxy.cli.log_writer import LogWriter, write_stdout

WITHIN_S = 10
LINE = "x" * 999
STALLED = """
import os, sys
from userspace_proxy.cli.log_writer import LogWriter
writer = LogWriter(int(sys.argv[1]), describe_dropped=str)
for _ in range(1500):
    writer.put("x" * 1000)
assert writer.dropped > 0
print("queued", flush=True)
"""


@pytest.fixture
def pipe():
    """The read end and the write end of a pipe with a capacity of 4 KiB."""
    ours, theirs = os.pipe()
    fcntl.fcntl(theirs, fcntl.F_SETPIPE_SZ, 4096)
    yield ours, theirs
    for descriptor in (ours, theirs):
        # The test may have closed this descriptor.
        with contextlib.suppress(OSError):
            os.close(descriptor)


def socketpair():
    """Return the descriptors of a socket pair: stderr of a systemd service is such a socket."""
    return [sock.detach() for sock in socket.socketpair()]


@pytest.fixture
def stack():
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture
def make():
    """Yield a function that creates log writers, whose threads end with the test."""
    made = []

    def make(descriptor, **more):
        writer = LogWriter(descriptor, describe_dropped=lambda n: f"{n} dropped", **more)
        made.append(writer)
        return writer

    yield make
    for writer in made:
        writer.close()


def read_until(descriptor, end):
    """Read and return lines up to and including ``end``."""
    text = ""
    while not text.endswith(f"{end}\n"):
        text += os.read(descriptor, 65536).decode()
    return text.splitlines()


def reported(lines):
    """Return the total number of dropped lines that these lines report."""
    return sum(int(line.split()[0]) for line in lines if line.endswith(" dropped"))


def test_log_lines_keep_their_order(pipe, make):
    ours, theirs = pipe
    writer = make(theirs)
    for number in range(500):
        writer.put(f"line {number}")
    assert read_until(ours, "line 499") == [f"line {number}" for number in range(500)]
    assert writer.dropped == 0


def test_a_stalled_reader_does_not_block_and_gets_a_count_of_dropped_lines(pipe, make):
    ours, theirs = pipe
    writer = make(theirs, max_queued_bytes=10_000)
    for _ in range(100):
        writer.put(LINE)
    dropped = writer.dropped
    assert dropped >= 100 - 4 - 4 - 10, "pipe, write and queue took more lines"
    lines, text = [], ""
    # If its thread starts late, the writer may report the dropped lines in two parts.
    while reported(lines) + lines.count(LINE) < 100:
        text += os.read(ours, 65536).decode()
        lines = text.splitlines()
    assert (reported(lines), lines.count(LINE)) == (dropped, 100 - dropped)
    writer.put("after")
    assert read_until(ours, "after") == ["after"]
    assert writer.dropped == dropped


def test_the_count_of_dropped_lines_is_written_in_their_place(pipe, make):
    ours, theirs = pipe
    writer = make(theirs, max_queued_bytes=10_000)
    for _ in range(100):
        writer.put(LINE)
    dropped = writer.dropped
    head = b""
    while writer.dropped == dropped:
        # The queue must shrink to half its size before it accepts a line again.
        writer.put("later")
        if writer.dropped == dropped:
            break
        dropped = writer.dropped
        head += os.read(ours, 1000)
    writer.put("end")
    lines = [*head.decode().splitlines(), *read_until(ours, "end")]
    assert lines[-2:] == ["later", "end"]
    assert (lines[-3].endswith(" dropped"), reported(lines)) == (True, dropped)
    assert writer.dropped == dropped


@pytest.mark.parametrize("make_stderr", [os.pipe, socketpair, os.openpty])
def test_an_exiting_process_does_not_wait_for_a_stalled_reader(make_stderr, stack):
    ours, theirs = make_stderr()
    for descriptor in (ours, theirs):
        stack.callback(os.close, descriptor)
    done = subprocess.run(
        [sys.executable, "-c", STALLED, str(theirs)],
        pass_fds=[theirs],
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "queued\n", "")


def test_a_flush_waits_for_the_reader_up_to_a_deadline(pipe, make):
    ours, theirs = pipe
    writer = make(theirs)
    writer.put("one")
    assert writer.flush(WITHIN_S)
    # The thread takes this line from the queue, but the line doesn't fit into the pipe.
    writer.put("x" * 2**17)
    assert not writer.flush(0.2)
    writer.put("end")
    read_until(ours, "end")
    assert writer.flush(WITHIN_S)


def test_a_descriptor_made_nonblocking_by_another_process_loses_no_lines(pipe, make):
    ours, theirs = pipe
    os.set_blocking(theirs, False)
    writer = make(theirs)
    for number in range(100):
        writer.put(f"{number} {LINE}")
    writer.put("end")
    assert len(read_until(ours, "end")) == 101
    assert not os.get_blocking(theirs), "the shared open file was made blocking"


@pytest.mark.parametrize("broken", ["closed", "/dev/full"])
def test_log_lines_that_cannot_be_written_are_counted(broken, make):
    if broken == "closed":
        ours, descriptor = os.pipe()
        os.close(ours)
    else:
        descriptor = os.open(broken, os.O_WRONLY)
    writer = make(descriptor)
    for number in range(3):
        writer.put("lost")
        assert writer.flush(WITHIN_S)
        assert writer.dropped == number + 1
    os.close(descriptor)


def test_the_count_of_lost_lines_is_written_once_the_file_is_writable(tmp_path, make):
    full = os.open("/dev/full", os.O_WRONLY)
    writer = make(full)
    for _ in range(3):
        # From the second line on, each line is lost together with a report of lost lines.
        writer.put("lost")
        assert writer.flush(WITHIN_S)
    with (tmp_path / "log").open("w") as freed:
        os.dup2(freed.fileno(), full)
    writer.put("kept")
    assert writer.flush(WITHIN_S)
    assert (tmp_path / "log").read_text() == "3 dropped\nkept\n"
    os.close(full)


def test_close_ends_the_thread_once_all_lines_are_written(pipe, make):
    before = set(threading.enumerate())
    writer = make(pipe[1])
    (thread,) = set(threading.enumerate()) - before
    for line in ("first", "last"):
        writer.put(line)
    writer.close()
    thread.join(60)
    assert not thread.is_alive()
    assert read_until(pipe[0], "last") == ["first", "last"]


def test_lines_of_any_length_and_encoding_are_written(tmp_path, make):
    with (tmp_path / "log").open("wb") as stream:
        writer = make(stream.fileno())
        writer.put("x" * 100_000)
        writer.put("\udcff grün")
        assert writer.flush(WITHIN_S)
    assert (tmp_path / "log").read_text() == f"{'x' * 100_000}\n\\udcff grün\n"


async def test_a_slow_reader_receives_the_whole_output(pipe):
    reader, writer = pipe
    text = "x" * 300_000
    writing = asyncio.create_task(write_stdout(text, writer))
    read = b""
    while len(read) < len(text):
        read += await asyncio.to_thread(os.read, reader, 65536)
    await writing
    assert read.decode() == text


async def test_the_event_loop_continues_while_the_reader_stalls(pipe):
    reader, writer = pipe
    writing = asyncio.create_task(write_stdout("x" * 300_000, writer))
    done, _ = await asyncio.wait([writing], timeout=0.05)
    assert not done
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    # The thread writes the rest, although the task was cancelled.
    left = 300_000
    while left:
        left -= len(await asyncio.to_thread(os.read, reader, 65536))
    assert not left


async def test_writing_to_a_pipe_without_a_reader_raises_an_error(pipe):
    reader, writer = pipe
    os.close(reader)
    with pytest.raises(BrokenPipeError):
        await write_stdout("x\n", writer)


def test_a_write_that_outlives_the_event_loop_is_completed(pipe):
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
