"""The defaults of an embedded proxy are those that are safe on a node."""

from userspace_proxy.agent.options import Options


def test_nothing_is_opened_or_allowed_by_default():
    options = Options()
    assert options.admin is None
    assert options.health is None
    assert not options.allow_loopback_endpoints
    assert not options.is_own_namespace


def test_proxy_ports_are_below_node_ports_and_ephemeral_ports():
    first, last = Options().proxy_ports
    assert 1024 < first < last < 30000
    assert last - first >= 10_000


def test_no_address_is_limited_and_no_external_ip_served_by_default():
    options = Options()
    assert options.node_port_networks == options.cluster_networks == ()
    assert options.external_ip_networks == ()
