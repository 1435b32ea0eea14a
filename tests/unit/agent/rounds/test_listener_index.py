"""The listener of a frontend, without a look at other Service ports."""

from userspace_proxy.agent.rounds.listener_index import ListenerIndex
from userspace_proxy.model import Frontend, Protocol
from userspace_proxy.steering import Bind

from ..samples import Cluster

POD = "192.0.2.1"


def frontend(ip):
    return Frontend(ip, 80, Protocol.TCP)


async def test_listeners_are_found_while_their_service_ports_are_served(make):
    cluster, served_ports = Cluster(), make(Bind.PROXY_PORT)
    cluster.serve("cart", "10.96.0.1", POD)
    served_ports.follow(cluster.serve("web", "10.96.0.2", POD))
    index = served_ports.listeners
    ports = {index.get(frontend(ip)).address.port for ip in ("10.96.0.1", "10.96.0.2")}
    assert len(ports) == 2
    served_ports.follow(cluster.serve("web", "10.96.0.3", POD))
    assert index.get(frontend("10.96.0.2")) is None
    assert index.get(frontend("10.96.0.3")).address.port in ports


class Owner:
    def __init__(self, *frontends):
        self.listeners = {each: (self, each) for each in frontends}


def test_a_frontend_that_was_taken_over_remains_with_the_new_service_port():
    one, two, both = frontend("10.96.0.1"), frontend("10.96.0.2"), ListenerIndex()
    before, after = Owner(one, two), Owner(one)
    both.change(before, before.listeners)
    both.change(after, after.listeners)
    both.change(before)
    assert both.get(one) == (after, one)
    assert both.get(two) is None
