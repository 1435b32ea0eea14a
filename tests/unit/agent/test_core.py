"""The wiring of the parts that carry traffic; ``test_agent`` serves clients with them."""

from userspace_proxy.agent.core import Core
from userspace_proxy.agent.rounds.options import Options
from userspace_proxy.facts import StatusFacts
from userspace_proxy.plane import PortPool
from userspace_proxy.sources import MemorySource
from userspace_proxy_testing.fakes.steering import FakeSteering

from .samples import Cluster


def make_core(plane, steering, options=None, **more):
    return Core(
        options=options or Options(),
        source=MemorySource(),
        steering=steering,
        is_own_steering=False,
        previous_workers=None,
        plane=plane,
        client_addresses=None,
        recovered={},
        pool=PortPool(28000, 28999),
        health=StatusFacts,
        **more,
    )


async def test_a_node_change_makes_a_sync_round_due(plane):
    core = make_core(plane, FakeSteering())
    core.sync.publish(Cluster().serve("web", "10.96.0.1", "192.0.2.1"))
    await core.sync._round()
    assert not core.sync._is_behind
    core.node.on_change()
    assert core.sync._is_behind
    core.served_ports.close()
