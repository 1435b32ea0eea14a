"""The defaults on which a plan depends are those that are safe on a node."""

from userspace_proxy.policy import PolicyOptions


def test_endpoints_on_loopback_are_not_allowed_by_default():
    assert not PolicyOptions().allow_loopback_endpoints


def test_no_address_is_limited_and_no_external_ip_served_by_default():
    options = PolicyOptions()
    assert options.node_port_networks == options.cluster_networks == ()
    assert options.external_ip_networks == ()
