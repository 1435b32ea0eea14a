"""Rows about failing endpoints on the kernel path, with hooks that translate clients' dials."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.hooked import HookedAgent, missing_feature

from .endpoints import (
    EJECTED,
    FAILURES,
    NONE_OF_TWO,
    ONE_OF_TWO,
    endpoint_refuses,
    endpoint_silent,
    endpoints_all_refuse,
    with_route,
)
from .rig import Rig
from .row import Group, Limits

GROUP = Group("Kernel path, hooks of connect()")

FIRST = (
    "the dial that finds the endpoint dead fails, and so does one at each probe later; the kernel "
    "dials no second endpoint for a client"
)
IN_FLIGHT = (
    "clients that have dialled the silent endpoint before a SYN is repeated, after a second, wait "
    "for it until they give up"
)
NO_ROUTE = (
    "the program of a socket isn't told of an ICMP error that comes back within connect(): only a "
    "repeated SYN, after a second, ejects the endpoint"
)
# Shares of the 62 dials during the shortest fault. In the first second, every other dial gets the
# failed endpoint.
TWO, A_SECOND = 2 / 62, 15 / 62


class HookedRig(Rig):
    """A rig with both Services on the kernel path, and their clients in the hooks' cgroup."""

    flags = ("--path=kernel", "--workers=1")
    agent_type = HookedAgent

    def __init__(self, folder: Path) -> None:
        if reason := missing_feature():
            pytest.skip(reason)
        super().__init__(folder)

    @property
    def client_prefix(self) -> tuple[str, ...]:
        assert isinstance(self.agent, HookedAgent)
        return self.agent.group.prefix

    def is_fault(self, problem: dict[str, Any]) -> bool:
        """Return False for earlier failed dials, which are reported for a minute."""
        return not problem["what"].startswith("Served by 2 endpoints now")

    def close(self) -> None:
        super().close()
        assert isinstance(self.agent, HookedAgent)
        self.agent.group.close()


GROUP.row(
    "one of two endpoints refuses connections",
    Limits(failed=TWO),
    [FAILURES, ONE_OF_TWO, EJECTED],
    name="hooks-endpoint-refuses",
    rig=HookedRig,
    not_promised=FIRST,
)(endpoint_refuses)

GROUP.row(
    "one of two endpoints drops all packets",
    Limits(failed=A_SECOND, slowest_s=4.0),
    [FAILURES, ONE_OF_TWO, EJECTED],
    name="hooks-endpoint-silent",
    rig=HookedRig,
    not_promised=IN_FLIGHT,
)(endpoint_silent)

GROUP.row(
    "all endpoints refuse connections",
    Limits(failed=1.0),
    [FAILURES, NONE_OF_TWO],
    name="hooks-endpoints-all-refuse",
    rig=HookedRig,
)(endpoints_all_refuse)


@GROUP.row(
    "the node has no route to one of two endpoints",
    Limits(failed=A_SECOND, slowest_s=4.0),
    [FAILURES, ONE_OF_TWO, EJECTED],
    rig=HookedRig,
    not_promised=NO_ROUTE,
)
def hooks_endpoint_unreachable(rig: HookedRig) -> Iterator[None]:
    yield from with_route(rig, "unreachable")
