"""The contract of all steering modes; each mode's test module derives a class from a class here.

A subclass provides the fixture ``steerings``: a factory of objects that share one kernel, so that
creating a second one is a restart.
"""

from __future__ import annotations

import abc
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager

import pytest

from userspace_proxy.errors import SteeringError
from userspace_proxy.model import Frontend, Protocol
from userspace_proxy.steering import REFUSE, Steering

WEB = Frontend("10.96.7.1", 80, Protocol.TCP)
CART = Frontend("10.96.7.2", 80, Protocol.TCP)
DNS = Frontend("10.96.0.10", 53, Protocol.UDP)
WEB_6 = Frontend("fd00:96::1", 80, Protocol.TCP)
OUTSIDE = Frontend("198.51.100.7", 443, Protocol.TCP)

# A refused change is retried within this many repairs, which the agent makes every second.
REPAIRS = 10

MakeSteering = Callable[[], Steering]


class SteeringContract:
    """The contract of every mode; methods that aren't tests define the modes' differences."""

    @pytest.fixture
    async def steering(self, steerings: MakeSteering) -> AsyncIterator[Steering]:
        steering = steerings()
        await steering.start()
        yield steering
        await steering.clean_up()
        await steering.close()

    def in_force(self) -> str:
        """Return the applied state as the kernel's own tools list it; empty if there is none."""
        return ""

    def recovers(self, ports: dict[Frontend, int]) -> dict[Frontend, int]:
        """Return the proxy ports that a restart recovers; 0 for refused frontends."""
        return ports

    async def test_applied_frontends_are_rendered_as_sorted_lines(self, steering):
        await steering.apply({WEB: 36001, CART: REFUSE, DNS: 36002, WEB_6: 36003, OUTSIDE: 36004})
        assert await steering.render() == (
            "TCP 10.96.7.1:80 -> :36001\n"
            "TCP 10.96.7.2:80 -> refuse\n"
            "TCP 198.51.100.7:443 -> :36004\n"
            "TCP [fd00:96::1]:80 -> :36003\n"
            "UDP 10.96.0.10:53 -> :36002"
        )

    async def test_render_is_empty_before_the_first_apply(self, steering):
        assert await steering.render() == ""

    async def test_apply_replaces_the_whole_state(self, steering):
        await steering.apply({WEB: 36001, DNS: 36002, WEB_6: 36003})
        await steering.apply({WEB: 36005})
        assert await steering.render() == "TCP 10.96.7.1:80 -> :36005"

    async def test_tcp_and_udp_on_one_address_are_two_frontends(self, steering):
        over_tcp = Frontend(DNS.ip, DNS.port, Protocol.TCP)
        await steering.apply({DNS: 36001, over_tcp: REFUSE})
        assert await steering.render() == (
            "TCP 10.96.0.10:53 -> refuse\nUDP 10.96.0.10:53 -> :36001"
        )

    async def test_a_restart_recovers_the_previous_targets(self, steering, steerings):
        await steering.apply({WEB: 36001, DNS: 36002, CART: REFUSE, WEB_6: 36003})
        await steering.close()
        successor = steerings()
        recovered = await successor.start()
        assert recovered == self.recovers({WEB: 36001, DNS: 36002, CART: 0, WEB_6: 36003})
        await successor.close()

    async def test_cleaning_up_restores_the_previous_kernel_state(self, steerings):
        before = self.in_force()
        steering = steerings()
        await steering.start()
        await steering.apply({WEB: 36001, DNS: 36002, CART: REFUSE, WEB_6: 36003})
        await steering.clean_up()
        assert await steering.render() == ""
        assert self.in_force() == before
        await steering.close()

    async def test_cleanup_requires_no_start_and_is_idempotent(self, steering, steerings):
        await steering.apply({WEB: 36001, DNS: 36002, WEB_6: 36003})
        await steering.close()
        cleaner = steerings()
        await cleaner.clean_up()
        await cleaner.clean_up()
        assert await cleaner.render() == ""
        await cleaner.close()

    async def test_a_change_equals_an_apply_of_the_resulting_state(self, steering, steerings):
        await steering.apply({WEB: 36001, DNS: 36002, CART: REFUSE, WEB_6: 36003})
        await steering.change({DNS: 36005, CART: 36006, OUTSIDE: REFUSE}, [WEB, WEB_6])
        changed, in_force = await steering.render(), self.in_force()
        assert changed == (
            "TCP 10.96.7.2:80 -> :36006\n"
            "TCP 198.51.100.7:443 -> refuse\n"
            "UDP 10.96.0.10:53 -> :36005"
        )
        await steering.apply({DNS: 36005, CART: 36006, OUTSIDE: REFUSE})
        assert (await steering.render(), self.in_force()) == (changed, in_force)
        assert await steering.repair() == 0

    async def test_a_change_adds_the_first_frontend_of_a_family_and_removes_the_last_frontend(
        self, steering
    ):
        await steering.apply({WEB: 36001})
        await steering.change({WEB_6: 36003}, ())
        assert await steering.render() == (
            "TCP 10.96.7.1:80 -> :36001\nTCP [fd00:96::1]:80 -> :36003"
        )
        await steering.change({}, [WEB_6, WEB])
        assert await steering.render() == ""
        assert await steering.repair() == 0


class KernelSteeringContract(SteeringContract):
    """The contract of modes with state in a kernel, which can refuse changes and lose state."""

    @abc.abstractmethod
    def break_it(self, steering: Steering) -> None:
        """Remove the applied state from the kernel, as another program might."""

    async def test_no_frontend_is_unsteered_if_the_kernel_accepts_all(self, steering):
        await steering.apply({WEB: 36001, DNS: REFUSE, WEB_6: 36003})
        assert steering.unsteered == {}

    async def test_drift_that_precedes_a_change_is_repaired_after_the_change(self, steering):
        await steering.apply({WEB: 36001, DNS: REFUSE})
        self.break_it(steering)
        await steering.change({WEB: 36002}, ())
        await steering.repair()
        assert await steering.render() == (
            "TCP 10.96.7.1:80 -> :36002\nUDP 10.96.0.10:53 -> refuse"
        )

    async def test_drift_is_counted_and_repaired(self, steering):
        await steering.apply({WEB: 36001, DNS: REFUSE})
        before = await steering.render()
        self.break_it(steering)
        assert await steering.render() != before
        assert await steering.repair() > 0
        assert await steering.render() == before
        assert await steering.repair() == 0


class AtomicSteeringContract(KernelSteeringContract):
    """The contract of modes whose kernel applies a transaction completely or not at all."""

    outside = OUTSIDE

    @abc.abstractmethod
    def obstacle(self, frontend: Frontend) -> AbstractContextManager[object]:
        """Within the block, make each ``apply`` with this frontend fail."""

    async def test_after_a_failed_apply_the_old_state_is_in_force(self, steering):
        await steering.apply({WEB: 36001})
        before = self.in_force()
        with self.obstacle(self.outside), pytest.raises(SteeringError):
            await steering.apply({self.outside: 36002, DNS: 36003})
        assert await steering.render() == "TCP 10.96.7.1:80 -> :36001"
        assert self.in_force() == before

    async def test_a_repair_after_a_failed_apply_does_not_apply_it(self, steering):
        await steering.apply({WEB: 36001})
        with self.obstacle(self.outside), pytest.raises(SteeringError):
            await steering.apply({self.outside: 36002})
        assert await steering.repair() == 0
        assert await steering.render() == "TCP 10.96.7.1:80 -> :36001"

    async def test_after_a_failed_change_the_old_state_is_in_force(self, steering):
        await steering.apply({WEB: 36001, CART: REFUSE})
        before = self.in_force()
        with self.obstacle(self.outside), pytest.raises(SteeringError):
            await steering.change({self.outside: 36002, CART: 36003, DNS: 36004}, [WEB])
        assert await steering.repair() == 0
        assert await steering.render() == "TCP 10.96.7.1:80 -> :36001\nTCP 10.96.7.2:80 -> refuse"
        assert self.in_force() == before
        await steering.change({CART: 36003}, [WEB])
        assert await steering.render() == "TCP 10.96.7.2:80 -> :36003"


class SelectiveSteeringContract(KernelSteeringContract):
    """The contract of modes whose kernel can refuse one frontend and accept all others."""

    outside = OUTSIDE
    """The frontend that the kernel can refuse."""

    @abc.abstractmethod
    def refusal(self, frontend: Frontend) -> AbstractContextManager[object]:
        """Within the block, make the kernel refuse only this frontend."""

    async def test_only_a_frontend_that_the_kernel_rejects_is_unsteered(self, steering):
        with self.refusal(self.outside):
            await steering.apply({self.outside: 36002, WEB: 36001, DNS: REFUSE})
            served = "TCP 10.96.7.1:80 -> :36001\nUDP 10.96.0.10:53 -> refuse"
            assert await steering.render() == served
            assert steering.unsteered.keys() == {self.outside}
            await steering.change({CART: 36003}, [DNS])
            served = "TCP 10.96.7.1:80 -> :36001\nTCP 10.96.7.2:80 -> :36003"
            assert await steering.render() == served
            assert steering.unsteered.keys() == {self.outside}

    async def test_a_frontend_rejected_during_a_change_is_unsteered_with_the_cause(self, steering):
        with self.refusal(self.outside):
            await steering.apply({WEB: 36001})
            await steering.change({self.outside: 36002}, ())
            assert steering.unsteered[self.outside].startswith("cannot ")
            assert await steering.render() == "TCP 10.96.7.1:80 -> :36001"

    async def test_a_rejected_frontend_is_not_counted_as_drift(self, steering):
        with self.refusal(self.outside):
            await steering.apply({self.outside: 36002, WEB: 36001})
            assert {await steering.repair() for _ in range(REPAIRS)} == {0}

    async def test_a_repair_steers_a_frontend_that_the_kernel_no_longer_rejects(self, steering):
        with self.refusal(self.outside):
            await steering.apply({self.outside: 36002, WEB: 36001})
        for _ in range(REPAIRS):
            await steering.repair()
        assert steering.unsteered == {}
        assert f"TCP {self.outside.address} -> :36002" in await steering.render()

    async def test_a_rejected_frontend_is_no_longer_reported_after_its_removal(self, steering):
        with self.refusal(self.outside):
            await steering.apply({self.outside: 36002, WEB: 36001})
            await steering.change({}, [self.outside])
            assert steering.unsteered == {}
            assert await steering.render() == "TCP 10.96.7.1:80 -> :36001"
