"""Rows about endpoints that fail in all ways, while another endpoint of the Service serves."""

from __future__ import annotations

from collections.abc import Iterator

from .evidence import LogLine, Metric, Problem
from .rig import Rig
from .row import Group, Limits

GROUP = Group("Endpoints")

OF_WEB = (("service", "web"),)
FAILURES = Metric("endpoint_failures", OF_WEB)
ONE_OF_TWO = Problem("1 of 2 endpoints did not answer")
EJECTED = LogLine("endpoint ejected")


@GROUP.row(
    "endpoint-refuses",
    "one of two endpoints refuses connections (its server has crashed)",
    Limits(),
    [FAILURES, ONE_OF_TWO, EJECTED],
)
def endpoint_refuses(rig: Rig) -> Iterator[None]:
    rig.servers["one"].stop()
    yield
    rig.start_server("one")


@GROUP.row(
    "endpoint-silent",
    "one of two endpoints drops all packets",
    Limits(),
    [FAILURES, ONE_OF_TWO, EJECTED],
)
def endpoint_silent(rig: Rig) -> Iterator[None]:
    rig.pod("one").drop_traffic()
    yield
    rig.pod("one").pass_traffic()


@GROUP.row(
    "endpoints-all-refuse",
    "all endpoints refuse connections",
    Limits(failed=1.0),
    [
        FAILURES,
        Metric("connections_refused", OF_WEB),
        Problem("none of its 2 endpoints answers"),
        EJECTED,
    ],
)
def endpoints_all_refuse(rig: Rig) -> Iterator[None]:
    for name in ("one", "two"):
        rig.servers[name].stop()
    yield
    for name in ("one", "two"):
        rig.start_server(name)
