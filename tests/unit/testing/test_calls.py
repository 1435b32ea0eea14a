import socket

import pytest

from userspace_proxy.errors import ListenError
from userspace_proxy.model import ServiceKey
from userspace_proxy.testing.calls import PROXY, Call, CallResult, receive, send


@pytest.fixture
def link():
    one, other = socket.socketpair()
    with one, other:
        yield one, other


def test_a_call_arrives_as_it_was_sent(link):
    ours, theirs = link
    call = Call(PROXY, "delete", (ServiceKey("shop", "web"),), {"port": 80})
    send(ours, call)
    assert receive(theirs) == (call, None)


def test_an_error_keeps_its_hint(link):
    ours, theirs = link
    send(ours, CallResult(error=ListenError("cannot listen", hint="use another")))
    answer, _ = receive(theirs)
    assert isinstance(answer.error, ListenError)
    assert (str(answer.error), answer.error.hint) == ("cannot listen (use another)", "use another")


def test_a_socket_is_passed_with_its_message(link):
    ours, theirs = link
    with socket.create_server(("127.0.0.1", 0)) as listener:
        send(ours, CallResult(), passed=listener)
        send(ours, CallResult(7))
        answer, passed = receive(theirs)
        with passed:
            assert (answer, passed.getsockname()) == (CallResult(), listener.getsockname())
    assert receive(theirs) == (CallResult(7), None)


def test_a_long_message_arrives_in_pieces(link):
    ours, theirs = link
    # More than the socket's buffer would block the sender, which nothing reads here.
    send(ours, "x" * 50_000)
    assert receive(theirs)[0] == "x" * 50_000


def test_the_end_of_the_other_side_is_an_error(link):
    ours, theirs = link
    theirs.close()
    with pytest.raises(EOFError):
        receive(ours)
