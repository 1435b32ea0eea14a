import asyncio
import os
import select
import signal
from pathlib import Path

import pytest

from tests.port_keys import port_key
from userspace_proxy import child
from userspace_proxy.dataplane import Tuning
from userspace_proxy.model.serving import Serving
from userspace_proxy.plane import worker_process as process
from userspace_proxy.plane.channel import MAX_FRAME_BYTES
from userspace_proxy.plane.messages import Drained, FromWorker, OpenGroup, Report, Running, Start
from userspace_proxy.plane.worker_process import WorkerProcess

from ..dataplane.rig import open_sockets
from ..dataplane.waiting import turns, until

# The module of a child process that sends messages which no worker sends.
CHILD = """
import os, socket, struct
def send(channel, body, *socks):
    frame = struct.pack(">IB", len(body), len(socks)) + body
    socket.send_fds(channel, [frame], [sock.fileno() for sock in socks])
def main(descriptor):
    channel = socket.socket(fileno=descriptor)
    %s
"""

# This is enough to receive a message of 8 MiB, but not to decode it.
WORKER_WITH_LITTLE_MEMORY = """
import resource
from userspace_proxy.plane.worker_main import run_worker
def main(descriptor):
    with open("/proc/self/statm") as statm:
        most = int(statm.read().split()[0]) * resource.getpagesize() + 12 * 1024 * 1024
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    return run_worker(descriptor)
"""


class Parent:
    """Records what a child process reports to its parent."""

    def __init__(self, **kwargs):
        self.messages: list[FromWorker] = []
        self.ends: list[str] = []
        self.process = WorkerProcess(
            asyncio.get_running_loop(), receive=self.receive, ended=self.ends.append, **kwargs
        )

    def receive(self, message):
        self.messages.append(message)

    async def end(self):
        await until(lambda: self.ends)
        return self.ends


@pytest.fixture
async def start(tmp_path, monkeypatch):
    before, parents = open_sockets(), []

    def start(module=None):
        entry = {}
        if module is not None:
            (tmp_path / "child_of_a_test.py").write_text(module, encoding="ascii")
            monkeypatch.syspath_prepend(tmp_path)
            entry = {"entry": "child_of_a_test:main"}
        parents.append(Parent(**entry))
        return parents[-1]

    yield start
    for parent in parents:
        parent.process.close(within_s=1.0)
        parent.process.close(within_s=1.0)
    assert open_sockets() <= before, "a socket was left open"


async def test_a_worker_is_started_and_its_messages_arrive(start):
    parent = start()
    parent.process.send(Start(0, Tuning(), {}))
    await until(lambda: parent.messages)
    (running,) = parent.messages
    assert isinstance(running, Running)
    assert running.pid == parent.process.pid


def descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_a_killed_process_is_reported_once_and_leaves_no_descriptor(start):
    before = descriptors()
    parent = start()
    parent.process.kill()
    parent.process.kill()
    assert await parent.end() == ["signal 9"]
    parent.process.kill()
    parent.process.send(Report(1))
    await turns(10)
    assert (parent.ends, descriptors()) == (["signal 9"], before)


async def test_a_worker_running_out_of_memory_exits_with_that_cause(start, caplog):
    parent = start(WORKER_WITH_LITTLE_MEMORY)
    parent.process.send(Start(0, Tuning(), {}))
    parent.process.send(OpenGroup(1, port_key("shop/" + "x" * (MAX_FRAME_BYTES - 1000)), Serving()))
    assert await parent.end() == ["exit status 12 (out of memory)"]
    assert caplog.records == []
    assert [type(message) for message in parent.messages] == [Running]


async def test_a_process_that_closes_the_channel_without_exiting_is_killed(start, monkeypatch):
    monkeypatch.setattr(process, "END_WITHIN_S", 0.01)
    parent = start(CHILD % "channel.close(); pipe = os.pipe(); os.read(pipe[0], 1)")
    assert await parent.end() == ["signal 9"]


async def test_a_process_closing_the_channel_before_exiting_reports_its_exit_status(start):
    parent = start(CHILD % "channel.close(); os.kill(os.getpid(), 19); os._exit(7)")
    pid = parent.process.pid
    await asyncio.to_thread(os.waitid, os.P_PID, pid, os.WSTOPPED | os.WNOWAIT)
    await until(lambda: parent.process._channel._is_closed)
    os.kill(pid, signal.SIGCONT)
    assert await parent.end() == ["exit status 7"]


async def test_a_process_that_does_not_read_is_killed_and_logged(start, caplog):
    parent = start(CHILD % "pipe = os.pipe(); os.read(pipe[0], 1)")
    parent.process._channel._max_waiting_bytes = 0
    parent.process.send(Report(1))
    assert await parent.end() == ["signal 9"]
    assert [r.message for r in caplog.records] == ["worker does not read its messages, killing it"]


async def test_close_ends_the_process_without_reporting_it(start):
    parent = start()
    parent.process.close(within_s=1.0)
    assert not Path(f"/proc/{parent.process.pid}").exists()
    await turns(10)
    assert parent.ends == []


async def test_messages_sent_before_an_exit_are_delivered_before_the_exit_is_reported(start):
    parent = start(CHILD % """send(channel, b'["Drained",3]'); os._exit(0)""")
    select.select([parent.process._pidfd], [], [], 10)
    # The loop calls this method first if it checks the process's descriptor first.
    parent.process._on_end()
    assert (parent.messages, parent.ends) == ([Drained(3)], ["exit status 0"])


async def test_sockets_sent_by_a_worker_are_closed(start):
    before = open_sockets()
    parent = start(CHILD % """send(channel, b'["Drained",3]', channel); os._exit(0)""")
    await parent.end()
    assert parent.messages == [Drained(3)]
    assert open_sockets() == before


async def test_a_worker_that_sends_a_malformed_message_is_killed(start, caplog):
    # Closing the channel doesn't end this worker.
    send = """send(channel, b'["Drained","3"]'); pipe = os.pipe(); os.read(pipe[0], 1)"""
    parent = start(CHILD % send)
    assert await parent.end() == ["signal 9"]
    (record,) = caplog.records
    assert (record.getMessage(), record.pid) == (
        "worker sent a malformed message, killing it: Expected `int`, got `str` - at `$[1]`",
        parent.process.pid,
    )
    assert parent.messages == []


async def test_a_worker_that_cannot_be_started_is_an_error_without_leaked_descriptors(monkeypatch):
    before = open_sockets()
    monkeypatch.setattr(child, "RUNNING_INTERPRETER", "/nowhere/python")
    with pytest.raises(FileNotFoundError):
        Parent()
    assert open_sockets() == before
