import socket
import subprocess
import sys

import pytest

from tests.node.processes import run_without_capabilities
from userspace_proxy.kernel import net_admin_proof

NAME = "\0userspace-proxy-proof-test"


@pytest.fixture
def listener():
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.bind(NAME)
        sock.listen()
        yield sock


@pytest.fixture
def connect(listener):
    """Return both ends of a new connection."""
    opened = []

    def make():
        prover = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        opened.append(prover)
        net_admin_proof.bind_prover(prover)
        prover.connect(NAME)
        opened.append(listener.accept()[0])
        return prover, opened[-1]

    yield make
    for sock in opened:
        sock.close()


@pytest.fixture
def challenge():
    with net_admin_proof.open_challenge() as sock:
        yield sock


def test_a_process_with_the_capability_answers(connect, challenge):
    prover, verifier = connect()
    assert net_admin_proof.can_prove(verifier)
    assert not net_admin_proof.is_answered(challenge, verifier)
    net_admin_proof.answer(challenge, prover)
    assert net_admin_proof.is_answered(challenge, verifier)


ANSWER = """
import socket
from userspace_proxy.kernel import net_admin_proof
with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as prover:
    net_admin_proof.bind_prover(prover)
    try:
        net_admin_proof.answer(net_admin_proof.open_challenge(), prover)
    except PermissionError as exc:
        print(exc.strerror)
"""


def test_root_without_the_capability_cannot_answer():
    assert run_without_capabilities(ANSWER) == "Operation not permitted\n"


def test_a_capability_in_another_user_namespace_does_not_count():
    command = ["unshare", "--user", "--map-root-user", sys.executable, "-c", ANSWER]
    environment = {"PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert done.stdout == "Operation not permitted\n"


@pytest.mark.parametrize("is_bound", [True, False])
def test_a_process_cannot_have_another_one_answer_for_it(connect, challenge, is_bound):
    """A stranger passes its challenge on to a process that proves the capability to it."""
    stranger, verifier = connect()
    prover, _ = connect()
    number = net_admin_proof._number(stranger.getsockname())
    if is_bound:
        challenge.bind((number, 0))
        with pytest.raises(OSError, match="Invalid argument"):
            net_admin_proof.answer(challenge, prover)
    else:
        net_admin_proof.answer(challenge, prover)
        with pytest.raises(OSError, match="Invalid argument"):
            challenge.bind((number, 0))
    assert not net_admin_proof.is_answered(challenge, verifier)


@pytest.mark.parametrize("spelling", ["0{:x}", "0x{:x}", "+{:x}", " {:x}"])
def test_another_spelling_of_a_number_proves_nothing(listener, connect, challenge, spelling):
    """It is another name, which a stranger can have while the process that answers has its own."""
    prover, _ = connect()
    number = net_admin_proof._number(prover.getsockname())
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stranger:
        stranger.bind("\0userspace-proxy-next#" + spelling.format(number))
        stranger.connect(NAME)
        with listener.accept()[0] as verifier:
            assert not net_admin_proof.can_prove(verifier)
            net_admin_proof.answer(challenge, prover)
            assert not net_admin_proof.is_answered(challenge, verifier)


@pytest.mark.parametrize("number", ["0", "80000000", "-1", "1_0", "1A"])
def test_a_name_has_a_number_that_a_netlink_socket_may_have(number):
    assert net_admin_proof._number(b"\0userspace-proxy-next#" + number.encode()) is None


def test_only_a_challenge_is_answered(connect):
    prover, _ = connect()
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as other:
        with pytest.raises(OSError, match="not a netlink socket for netfilter"):
            net_admin_proof.answer(other, prover)
        assert other.getsockname() == (0, 0)


@pytest.mark.parametrize("name", ["", "\0another", "\0userspace-proxy-next#x"])
def test_an_end_without_a_number_proves_nothing(listener, challenge, name):
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as prover:
        if name:
            prover.bind(name)
        prover.connect(NAME)
        with listener.accept()[0] as verifier:
            assert not net_admin_proof.can_prove(verifier)
            net_admin_proof.answer(challenge, prover)
            assert not net_admin_proof.is_answered(challenge, verifier)
