"""What scaling needs is what the agent has."""

from userspace_proxy.scaling.served import Served, ServedByName
from userspace_proxy.steering import Bind

from ..agent.samples import Cluster


def needed(protocol):
    names = (*vars(protocol), *protocol.__annotations__)
    return [name for name in names if not name.startswith("_")]


def test_the_agents_service_ports_have_what_scaling_needs(make):
    served_ports = make(Bind.PROXY_PORT)
    served_ports.follow(Cluster().serve("web", "10.96.0.1", "192.0.2.1"))
    assert "quiesce" in needed(ServedByName)
    assert all(hasattr(served_ports, name) for name in needed(ServedByName))
    (served,) = served_ports
    assert all(hasattr(served, name) for name in needed(Served))
