from __future__ import annotations

import pytest

from userspace_proxy.steering.interfaces import InterfaceView, choose_address

VIEW = InterfaceView(addresses=("192.0.2.10", "198.51.100.20"))


@pytest.mark.parametrize(
    ("preferred", "expected"),
    [
        pytest.param(("198.51.100.20", "192.0.2.10"), "198.51.100.20", id="the-nodes-first"),
        pytest.param(("203.0.113.1", "198.51.100.20"), "198.51.100.20", id="one-nobody-has"),
    ],
)
def test_the_nodes_own_address_is_taken_where_an_interface_has_it(preferred, expected):
    assert choose_address(preferred, VIEW) == expected


def test_without_a_known_address_one_of_an_interface_is_taken():
    assert choose_address((), VIEW) in VIEW.addresses


def test_a_node_without_addresses_has_none():
    assert choose_address(("192.0.2.10",), InterfaceView()) == ""
