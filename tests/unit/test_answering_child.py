import os
import select
import signal

import pytest

from userspace_proxy.answering_child import AnsweringChild, ChildEnded

PROGRAM = """
import os
import signal
import socket
from userspace_proxy.frames import receive_frame, send_frame

def echo(descriptor, status):
    with socket.socket(fileno=descriptor) as link:
        send_frame(link, b"ready")
        try:
            while True:
                send_frame(link, receive_frame(link)[0], link)
        except EOFError:
            return status

def interrupt(descriptor, status):
    with socket.socket(fileno=descriptor) as link:
        receive_frame(link)
        os.kill(os.getppid(), signal.SIGINT)
        try:
            receive_frame(link)
        except EOFError:
            return status

def hang(*_):
    signal.pause()

def leave(descriptor, status):
    with socket.socket(fileno=descriptor) as link:
        send_frame(link, b"cannot start")
    return status
"""


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Yield a function that starts children, which end after the test."""
    (tmp_path / "program.py").write_text(PROGRAM, encoding="ascii")
    monkeypatch.syspath_prepend(tmp_path)
    children = []

    def start(function, *, within_s=60.0):
        children.append(AnsweringChild(f"program:{function}", 7, answer_within_s=within_s))
        return children[-1]

    yield start
    for child in children:
        child.close()


def test_each_reply_is_received_with_its_descriptors(start):
    child = start("echo")
    assert child.ask(None) == (b"ready", [])
    answer, (passed,) = child.ask(b"one")
    passed.close()
    assert answer == b"one"
    assert not child.has_ended


def test_a_child_ends_when_its_connection_closes_and_close_is_idempotent(start):
    child = start("echo")
    child.ask(None)
    assert (child.close(), child.close()) == (7, 7)
    assert child.is_closed
    assert child.has_ended


def test_a_killed_child_is_an_error_with_its_status(start):
    child = start("echo")
    child.ask(None)
    os.kill(child.pid, signal.SIGKILL)
    with pytest.raises(ChildEnded, match=r"^ended with status -9$"):
        child.ask(b"one")


def test_an_unresponsive_child_is_killed(start):
    child = start("hang", within_s=0.05)
    with pytest.raises(ChildEnded, match=r"^gave no answer within 0.05 s$"):
        child.ask(b"one")
    with os.fdopen(os.pidfd_open(child.pid)) as end:
        assert select.select([end], [], [], 60.0)[0]
    assert child.close() == -signal.SIGKILL


def test_the_reply_to_an_interrupted_call_is_not_returned_later(start):
    child = start("interrupt")
    with pytest.raises(KeyboardInterrupt):
        child.ask(b"one")
    assert child.is_closed
    assert child.close() == 7


def test_a_reply_sent_before_a_child_ended_is_returned(start):
    child = start("leave")
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert child.ask(b"one") == (b"cannot start", [])
    assert child.has_ended
