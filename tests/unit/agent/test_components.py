"""The list of components, and its order."""

import pytest

from userspace_proxy.agent.components import components_of
from userspace_proxy.agent.rounds.component import OwnAddresses
from userspace_proxy.agent.rounds.options import Options
from userspace_proxy.agent.status_servers import Shown
from userspace_proxy.facts import StatusFacts
from userspace_proxy_testing.fakes.steering import FakeSteering

from .test_core import make_core

ALWAYS = [
    "PlaneComponent",
    "NodeNow",
    "HealthChecks",
    "SyncComponent",
    "Scaling",
    "EjectedEndpoints",
    "LastState",
    "EndpointNames",
    "KernelCounts",
    "Compared",
    "StatusServers",
    "NamesByDns",
]


class NoSteering(FakeSteering):
    name = "none"


async def nothing(_text=""):
    """Do nothing."""


@pytest.mark.parametrize(
    ("steering", "write_addresses", "more"),
    [
        pytest.param(NoSteering, None, [], id="no-steering"),
        pytest.param(FakeSteering, None, ["TrackingWatch"], id="a-callers-steering"),
        pytest.param(NoSteering, nothing, ["AddressPrinter"], id="addresses-are-printed"),
    ],
)
async def test_components_are_listed_in_start_order(plane, steering, write_addresses, more):
    core = make_core(plane, steering(), Options(write_addresses=write_addresses))
    shown = Shown(StatusFacts, StatusFacts, nothing)
    found = [type(one).__name__ for one in components_of(core, shown, OwnAddresses())]
    assert found == [*ALWAYS, *more, "SourceComponent", "Relief"]
    core.served_ports.close()
