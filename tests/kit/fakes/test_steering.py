"""The fake of steering passes the contract tests."""

from __future__ import annotations

from contextlib import contextmanager

import pytest

from tests.node.steering_contract import (
    OUTSIDE,
    WEB,
    AtomicSteeringContract,
    SelectiveSteeringContract,
)
from userspace_proxy.errors import SteeringError
from userspace_proxy.model import Frontend
from userspace_proxy.steering.base import render_targets
from userspace_proxy_testing.fakes.steering import FakeSteering


class TestFakeSteering(AtomicSteeringContract, SelectiveSteeringContract):
    @pytest.fixture
    def steerings(self):
        self.kernel = {}
        self.taken = {}
        self.made = []

        def make() -> FakeSteering:
            self.made.append(FakeSteering(kernel=self.kernel, taken=self.taken))
            return self.made[-1]

        return make

    def in_force(self) -> str:
        return render_targets(self.kernel)

    @contextmanager
    def obstacle(self, _frontend: Frontend):
        (steering,) = self.made
        steering.fails_with = SteeringError("cannot commit: Device or resource busy")
        yield
        steering.fails_with = None

    @contextmanager
    def refusal(self, frontend: Frontend):
        self.taken[frontend] = "table ip kube-proxy"
        yield
        del self.taken[frontend]

    def break_it(self, steering: FakeSteering) -> None:
        steering.kernel.clear()


async def test_a_conflict_names_the_address_the_owner_and_the_remedy():
    steering = FakeSteering(taken={WEB: "table ip kube-proxy"})
    await steering.apply({OUTSIDE: 36001, WEB: 36002})
    assert steering.unsteered == {
        WEB: "cannot steer 10.96.7.1:80/TCP: already steered by table ip kube-proxy "
        "(stop kube-proxy on this node or run with --steering=none)"
    }
    assert await steering.render() == "TCP 198.51.100.7:443 -> :36001"
