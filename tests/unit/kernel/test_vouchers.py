import socket

import pytest

from tests.node.processes import run_without_capabilities
from userspace_proxy.kernel import vouchers
from userspace_proxy.kernel.vouchers import Vouched, can_vouch, open_vouchers

NAME = b"userspace-proxy-voucher-test"


def close(socks):
    for sock in socks:
        sock.close()


def test_a_name_is_vouched_for_while_the_sockets_are_open():
    assert can_vouch()
    assert NAME not in Vouched()
    opened = open_vouchers(NAME)
    assert NAME in Vouched()
    assert NAME + b"2" not in Vouched()
    close(opened)
    assert NAME not in Vouched()


@pytest.mark.parametrize("which", [0, 1])
def test_one_socket_of_both_is_not_enough(which):
    opened = open_vouchers(NAME)
    opened[which].close()
    assert NAME not in Vouched()
    close(opened)


def test_a_copy_is_enough():
    opened = open_vouchers(NAME)
    copies = [sock.dup() for sock in opened]
    close(opened)
    assert NAME in Vouched()
    close(copies)


ROOT_WITHOUT_CAPABILITIES = f"""
import socket
from userspace_proxy.kernel import vouchers
print(vouchers.can_vouch(), len(vouchers.open_vouchers({NAME!r})), b"other" in vouchers.Vouched())
for number, groups in vouchers._vouchers({NAME!r}):
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)
    sock.bind((number, 0))
    try:
        sock.bind((number, groups))
    except PermissionError as exc:
        print(exc.strerror)
print({NAME!r} in vouchers.Vouched())
"""


def test_root_without_capabilities_sees_vouchers_and_cannot_vouch():
    opened = open_vouchers(b"other")
    said = run_without_capabilities(ROOT_WITHOUT_CAPABILITIES)
    close(opened)
    assert said == "False 0 True\n" + "Operation not permitted\n" * 2 + "False\n"


def test_a_number_that_another_process_has_is_an_error():
    (number, _), _ = vouchers._vouchers(NAME)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12) as squatter:
        squatter.bind((number, 0))
        with pytest.raises(OSError, match="Address already in use"):
            open_vouchers(NAME)
    assert NAME not in Vouched()


@pytest.mark.parametrize("part", [0, 2**64 - 1])
@pytest.mark.parametrize("which", [0, 1])
def test_each_hash_is_a_number_and_groups_that_the_kernel_shows(which, part):
    voucher = vouchers._voucher(which, part)
    with vouchers._open(voucher) as sock:
        assert sock.getsockname() == voucher
        assert vouchers.Vouched()._shown >= {voucher}
