import socket

import pytest

from tests.node.processes import run_without_capabilities
from userspace_proxy.kernel import name_proofs
from userspace_proxy.kernel.name_proofs import ProvenNames, can_prove, open_name_proofs

NAME = b"userspace-proxy-voucher-test"


def close(socks):
    for sock in socks:
        sock.close()


def test_a_name_is_proven_while_its_proof_sockets_are_open():
    assert can_prove()
    assert NAME not in ProvenNames()
    opened = open_name_proofs(NAME)
    assert NAME in ProvenNames()
    assert NAME + b"2" not in ProvenNames()
    close(opened)
    assert NAME not in ProvenNames()


@pytest.mark.parametrize("which", [0, 1])
def test_a_single_proof_socket_does_not_prove_a_name(which):
    opened = open_name_proofs(NAME)
    opened[which].close()
    assert NAME not in ProvenNames()
    close(opened)


def test_a_copied_descriptor_keeps_a_proof_alive():
    opened = open_name_proofs(NAME)
    copies = [sock.dup() for sock in opened]
    close(opened)
    assert NAME in ProvenNames()
    close(copies)


ROOT_WITHOUT_CAPABILITIES = f"""
import socket
from userspace_proxy.kernel import name_proofs
proofs, names = name_proofs.open_name_proofs({NAME!r}), name_proofs.ProvenNames()
print(name_proofs.can_prove(), len(proofs), b"other" in names)
for number, groups in name_proofs._name_proofs({NAME!r}):
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)
    sock.bind((number, 0))
    try:
        sock.bind((number, groups))
    except PermissionError as exc:
        print(exc.strerror)
print({NAME!r} in name_proofs.ProvenNames())
"""


def test_root_without_capabilities_can_read_but_not_create_proofs():
    opened = open_name_proofs(b"other")
    said = run_without_capabilities(ROOT_WITHOUT_CAPABILITIES)
    close(opened)
    assert said == "False 0 True\n" + "Operation not permitted\n" * 2 + "False\n"


def test_a_proof_number_in_use_is_an_error():
    (number, _), _ = name_proofs._name_proofs(NAME)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12) as squatter:
        squatter.bind((number, 0))
        with pytest.raises(OSError, match="Address already in use"):
            open_name_proofs(NAME)
    assert NAME not in ProvenNames()


@pytest.mark.parametrize("part", [0, 2**64 - 1])
@pytest.mark.parametrize("which", [0, 1])
def test_name_proofs_with_extreme_hash_values_are_listed_by_the_kernel(which, part):
    name_proof = name_proofs._name_proof(which, part)
    with name_proofs._open(name_proof) as sock:
        assert sock.getsockname() == name_proof
        assert name_proofs.ProvenNames()._shown >= {name_proof}
