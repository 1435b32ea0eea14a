"""Tests that the default options are safe on a node."""

from userspace_proxy.policy import PolicyOptions


def test_loopback_endpoints_are_disallowed_by_default():
    assert not PolicyOptions().allow_loopback_endpoints


def test_by_default_no_networks_are_configured_and_no_external_ip_is_allowed():
    options = PolicyOptions()
    assert options.node_port_networks == options.cluster_networks == ()
    assert options.external_ip_networks == ()
