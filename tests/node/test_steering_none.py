"""The steering mode "none" fulfils the applicable parts of the contract."""

import pytest
from steering_contract import SteeringContract

from userspace_proxy.steering import Bind, SteeringFacts, make_steering


class TestNoSteering(SteeringContract):
    @pytest.fixture
    def steerings(self):
        return lambda: make_steering("none", SteeringFacts())

    def recovers(self, ports):
        return {}


@pytest.mark.kernel
def test_the_none_mode_binds_listeners_to_loopback():
    assert make_steering("none", SteeringFacts()).bind is Bind.LOOPBACK
