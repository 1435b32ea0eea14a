"""Settings become a proxy's options and source; the process itself is tried in tests/node."""

import socket
from dataclasses import replace

import pytest

from userspace_proxy.agent.run import make_options, make_source, node_name
from userspace_proxy.config import InheritedSocket, PortRange, Settings
from userspace_proxy.errors import ConfigError


def test_the_nodes_name_is_the_one_that_was_told_else_the_hosts():
    assert node_name(Settings(hostname_override="node-7")) == "node-7"
    assert node_name(Settings()) == socket.gethostname().strip().lower()


def test_settings_reach_the_proxy():
    options = make_options(
        Settings(
            service_proxy_name="canary",
            proxy_port_range=PortRange(20000, 20999),
            connect_timeout_s=0.25,
            udp_idle_s=9.0,
            iptables_min_sync_period_s=0.5,
            healthz_bind_address=None,
        )
    )
    assert options.proxy_name == "canary"
    assert options.proxy_ports == (20000, 20999)
    assert options.tuning.connect_timeout_s == 0.25
    assert options.tuning.udp_idle_s == 9.0
    assert options.min_sync_period_s == 0.5
    assert options.health is None
    assert options.admin == ("127.0.0.1", 10249)
    assert not options.allow_loopback_endpoints


def test_configz_gets_every_setting():
    names = {name for name, _, _ in make_options(Settings()).config}
    assert {"steering", "proxy_port_range", "udp_idle_s"} <= names


def test_an_inherited_socket_is_served_as_it_is():
    with socket.create_server(("127.0.0.1", 0)) as inherited:
        settings = replace(Settings(), metrics_bind_address=InheritedSocket(inherited.fileno()))
        bind = make_options(settings).admin
        assert isinstance(bind, socket.socket)
        assert bind.getsockname() == inherited.getsockname()
        bind.detach()


def test_a_descriptor_that_is_no_socket_is_named():
    settings = replace(Settings(), metrics_bind_address=InheritedSocket(99999))
    with pytest.raises(ConfigError, match="--metrics-bind-address: descriptor 99999 is not"):
        make_options(settings)


def test_manifests_take_the_place_of_an_api_server():
    source = make_source(Settings(manifests="services/"))
    assert source.kind == "manifests"
    assert source.location == "services/"
