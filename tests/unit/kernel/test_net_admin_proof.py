import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.netns import Net
from tests.node.processes import run_without_capabilities
from userspace_proxy.kernel import net_admin_proof
from userspace_proxy.kernel.net_admin_proof import Prover

NAME = "\0userspace-proxy-proof-test"


@pytest.fixture
def listener():
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.bind(NAME)
        sock.listen()
        yield sock


@pytest.fixture
def connect(listener):
    """Yield a function that returns both ends of a new connection."""
    opened = []

    def make():
        prover = Prover()
        opened.append(prover)
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


def test_a_process_with_the_capability_passes_the_challenge(connect, challenge):
    prover, verifier = connect()
    before = len(list(Path("/proc/self/fd").iterdir()))
    assert net_admin_proof.can_prove(verifier)
    assert not net_admin_proof.is_answered(challenge, verifier, b"")
    proof = prover.answer(challenge)
    assert net_admin_proof.is_answered(challenge, verifier, proof)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_challenge_bound_without_a_multicast_group_is_not_a_proof(connect, challenge):
    prover, verifier = connect()
    challenge.bind((net_admin_proof._port_id(prover._secret), 0))
    assert not net_admin_proof.is_answered(challenge, verifier, prover._secret)


ANSWER = """
from userspace_proxy.kernel import net_admin_proof
with net_admin_proof.Prover() as prover:
    try:
        prover.answer(net_admin_proof.open_challenge())
    except PermissionError as exc:
        print(exc.strerror)
"""


def test_root_without_the_capability_cannot_pass_the_challenge():
    assert run_without_capabilities(ANSWER) == "Operation not permitted\n"


def test_a_capability_in_another_user_namespace_does_not_count():
    command = ["unshare", "--user", "--map-root-user", sys.executable, "-c", ANSWER]
    environment = {"PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert done.stdout == "Operation not permitted\n"


def numbers_in_names():
    """Return the port IDs that any user can read from the names of the provers' sockets."""
    shown = Path("/proc/thread-self/net/unix").read_text()
    texts = re.findall(r"@userspace-proxy-next#([0-9a-f]+)$", shown, re.MULTILINE)
    return [int(text, 16) for text in texts if int(text, 16) < 2**31]


def test_the_challenges_port_id_cannot_be_bound_in_advance(connect, challenge):
    """Any user can bind a port ID; only joining a multicast group requires the capability."""
    prover, verifier = connect()
    strangers = []
    try:
        for number in numbers_in_names():
            strangers.append(net_admin_proof.open_challenge())
            strangers[-1].bind((number, 0))
        assert net_admin_proof.is_answered(challenge, verifier, prover.answer(challenge))
    finally:
        for sock in strangers:
            sock.close()


def test_a_challenge_relayed_to_another_process_proves_nothing(connect, challenge):
    """An unprivileged process relays its challenge to a process that has the capability."""
    stranger, verifier = connect()
    prover, _ = connect()
    for proof in (prover.answer(challenge), stranger._secret):
        assert not net_admin_proof.is_answered(challenge, verifier, proof)


def test_a_challenge_bound_by_another_process_is_not_answered(connect, challenge):
    stranger, verifier = connect()
    prover, _ = connect()
    challenge.bind((net_admin_proof._port_id(stranger._secret), 0))
    with pytest.raises(OSError, match="Invalid argument"):
        prover.answer(challenge)
    assert not net_admin_proof.is_answered(challenge, verifier, stranger._secret)


def test_a_challenge_from_another_network_namespace_is_not_answered(listener, challenge):
    """Another process can bind a prover's socket name in the other namespace."""
    elsewhere = Net("elsewhere")
    with elsewhere:
        prover = Prover()
    with prover, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stranger:
        stranger.bind(prover.getsockname())
        stranger.connect(NAME)
        with listener.accept()[0] as verifier:
            assert net_admin_proof.can_prove(verifier)
            with pytest.raises(OSError, match="another network namespace"):
                prover.answer(challenge)
            assert not net_admin_proof.is_answered(challenge, verifier, prover._secret)
    elsewhere.close()


def test_only_netfilter_netlink_sockets_are_answered(connect):
    prover, _ = connect()
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as other:
        with pytest.raises(OSError, match="not a netlink socket for netfilter"):
            prover.answer(other)
        assert other.getsockname() == (0, 0)


@pytest.mark.parametrize("name", ["", "\0another"])
def test_a_connection_without_a_proof_name_proves_no_capability(listener, challenge, name):
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stranger, Prover() as prover:
        if name:
            stranger.bind(name)
        stranger.connect(NAME)
        with listener.accept()[0] as verifier:
            assert not net_admin_proof.can_prove(verifier)
            proof = prover.answer(challenge)
            assert not net_admin_proof.is_answered(challenge, verifier, proof)
