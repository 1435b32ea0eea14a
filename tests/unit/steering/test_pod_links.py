"""The links that lead only to containers, followed in a real kernel."""

import os

import pytest

from userspace_proxy.errors import SteeringError
from userspace_proxy.steering import pod_links
from userspace_proxy.steering.pod_links import PodLinks, read_client_links


def test_pod_links_follow_added_changed_and_removed_links(node, monkeypatch):
    node.run("ip link add v1 type veth; ip link set v1 up")
    links = PodLinks()
    before = links.numbers()
    node.run("ip link add v0 type veth; ip link set v0 up; ip link add br0 type bridge")
    added = links.numbers() - before
    assert len(added) == 3
    node.run("ip address add 10.9.0.1/24 dev v0; ip link set br0 up")
    assert len(links.numbers() - before) == 2
    node.run("ip link del v0; ip link del br0")
    with monkeypatch.context() as failing:
        failing.setattr(pod_links, "read_links_and_routes", lambda *_: os.close(-1))
        with pytest.raises(SteeringError):
            links.known()
    assert links.numbers() == before, "a failed listing is repeated without another event"
    links.close()


def test_client_links_include_pod_links_and_uplinks_with_their_networks(node):
    node.run("ip link add v0 type veth; ip link set v0 up; ip route add 10.9.0.2 dev v0")
    node.run("ip link add eth0 type bridge; ip link set eth0 up; ip route add default dev eth0")
    found = {
        link.name: (link.is_uplink, [*map(str, link.networks)]) for link in read_client_links()
    }
    assert found["v0"] == (False, ["10.9.0.2/32"])
    assert found["eth0"] == (True, ["0.0.0.0/0"])
