"""What a Service promises, read from manifests, under rules."""

from __future__ import annotations

import pytest

from tests.node.testbed import Testbed
from tests.promises.affinity import AffinityPromises
from tests.promises.endpoints import EndpointPromises
from tests.promises.families import FamilyPromises
from tests.promises.labels import LabelPromises
from tests.promises.nodes import NodePromises
from tests.promises.outside import OutsidePromises
from tests.promises.policies import PolicyPromises
from tests.promises.types import TypePromises
from tests.promises.udp import UdpPromises
from tests.promises.world import FLAGS, ManifestWorld

pytestmark = pytest.mark.netns


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A node whose agent reads a file."""
    with Testbed(tmp_path_factory.mktemp("agent"), "iptables", *FLAGS) as testbed:
        yield ManifestWorld(testbed)


@pytest.fixture(autouse=True)
def _hang_up(world):
    yield
    world.hang_up()


class TestAffinity(AffinityPromises):
    pass


class TestTypes(TypePromises):
    pass


class TestEndpoints(EndpointPromises):
    pass


class TestPolicies(PolicyPromises):
    pass


class TestOutside(OutsidePromises):
    pass


class TestFamilies(FamilyPromises):
    pass


class TestLabels(LabelPromises):
    pass


class TestUdp(UdpPromises):
    pass


class TestNodes(NodePromises):
    pass
