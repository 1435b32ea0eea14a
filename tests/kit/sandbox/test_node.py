from ipaddress import ip_address, ip_network

import pytest

from userspace_proxy.errors import SandboxError
from userspace_proxy_testing.sandbox.address_plan import PodRanges
from userspace_proxy_testing.sandbox.node import Host, SandboxNode


class Nothing:
    pid = 42


def test_a_host_without_ipv6_has_no_ipv6_address():
    host = Host("laptop", Nothing(), [ip_address("198.51.100.1")])
    assert (str(host.ip), host.ip6) == ("198.51.100.1", None)


def test_no_pod_is_started_when_the_range_is_exhausted():
    tiny = (ip_network("10.244.0.0/31"),)
    node = SandboxNode(
        "node-1",
        Nothing(),
        [ip_address("192.0.2.1")],
        ranges=PodRanges(tiny, tiny, tiny),
        make_holder=lambda: pytest.fail("a namespace was made"),
    )
    with pytest.raises(SandboxError, match="used up"):
        node.add_pod("web-1")
    assert node.pods == {}
