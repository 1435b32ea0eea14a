"""Rows about failures of endpoints, mostly of one of two."""

from __future__ import annotations

from collections.abc import Iterator

from tests.node.load import pass_time

from .evidence import LogLine, Metric, Problem
from .rig import Rig
from .row import Group, Limits

GROUP = Group("Endpoints")

OF_WEB = (("service", "web"),)
FAILURES = Metric("endpoint_failures", OF_WEB)
REFUSED = Metric("connections_refused", OF_WEB)
ONE_OF_TWO = Problem("the other one serves")
NONE_OF_TWO = Problem("none of its 2 endpoints answers")
EJECTED = LogLine("endpoint ejected")
FLAPS, FLAP_S = 5, 0.4


@GROUP.row(
    "one of two endpoints refuses connections (its server has crashed)",
    Limits(),
    [FAILURES, ONE_OF_TWO, EJECTED],
)
def endpoint_refuses(rig: Rig) -> Iterator[None]:
    rig.servers["one"].stop()
    yield
    rig.start_server("one")


@GROUP.row(
    "one of two endpoints drops all packets",
    Limits(slowest_s=1.5),
    [FAILURES, ONE_OF_TWO, EJECTED],
)
def endpoint_silent(rig: Rig) -> Iterator[None]:
    rig.pod("one").drop_traffic()
    yield
    rig.pod("one").pass_traffic()


@GROUP.row(
    "the node has no route to one of two endpoints",
    Limits(),
    [FAILURES, ONE_OF_TWO, EJECTED],
)
def endpoint_unreachable(rig: Rig) -> Iterator[None]:
    yield from with_route(rig, "unreachable")


@GROUP.row(
    "a rule of the node prohibits packets to one of two endpoints",
    Limits(),
    [FAILURES, ONE_OF_TWO, EJECTED],
)
def endpoint_prohibited(rig: Rig) -> Iterator[None]:
    yield from with_route(rig, "prohibit")


def with_route(rig: Rig, kind: str) -> Iterator[None]:
    """Override the node's route to the first endpoint with a route of another type."""
    ip = rig.pod("one").ip
    rig.testbed.node.configure([f"route add {kind} {ip} metric 0 table 77", "rule add table 77"])
    yield
    rig.testbed.node.configure(["rule del table 77", "route flush table 77"])


@GROUP.row(
    "one of two endpoints is stopped (SIGSTOP): its kernel accepts, and nothing answers",
    Limits(failed=0.6, slowest_s=6.0),
    [Metric("connections_active", OF_WEB)],
    not_promised="a connection that an endpoint's kernel has accepted stays with that endpoint, "
    "so its clients wait until they give up; readiness probes take it out of the Service",
)
def endpoint_hangs(rig: Rig) -> Iterator[None]:
    rig.servers["one"].pause()
    yield
    rig.servers["one"].resume()


@GROUP.row(
    "one of two endpoints accepts connections and resets them at the first byte",
    Limits(failed=0.6),
    [Metric("endpoint_connections", OF_WEB)],
    not_promised="a client's request may have had an effect, so it isn't repeated at another "
    "endpoint; the reset is passed on at once",
)
def endpoint_resets(rig: Rig) -> Iterator[None]:
    rig.servers["one"].stop()
    rig.start_server("one", reset=8080)
    yield
    rig.servers["one"].stop()
    rig.start_server("one")


@GROUP.row(
    f"one of two endpoints crashes and returns {FLAPS} times in {2 * FLAPS * FLAP_S:g} s",
    Limits(failed=0.05, fault_s=0.0),
    [FAILURES, EJECTED],
    not_promised="connections that the crash cuts off fail, as those in the middle of a request",
)
def endpoint_flaps(rig: Rig) -> Iterator[None]:
    for _ in range(FLAPS):
        rig.servers["one"].stop()
        pass_time(FLAP_S)
        rig.start_server("one")
        pass_time(FLAP_S)
    yield


@GROUP.row(
    "all endpoints refuse connections",
    Limits(failed=1.0),
    [FAILURES, REFUSED, NONE_OF_TWO, EJECTED],
)
def endpoints_all_refuse(rig: Rig) -> Iterator[None]:
    for name in rig.web_pods:
        rig.servers[name].stop()
    yield
    for name in rig.web_pods:
        rig.start_server(name)


@GROUP.row(
    "all endpoints drop all packets",
    Limits(failed=1.0, slowest_s=3.0),
    [FAILURES, REFUSED, NONE_OF_TWO, EJECTED],
)
def endpoints_all_silent(rig: Rig) -> Iterator[None]:
    for name in rig.web_pods:
        rig.pod(name).drop_traffic()
    yield
    for name in rig.web_pods:
        rig.pod(name).pass_traffic()


@GROUP.row(
    "the EndpointSlice becomes empty",
    Limits(failed=1.0, back_s=3.0),
    [Metric("usable_endpoints", OF_WEB), Problem("Clients are refused")],
)
def endpoints_none(rig: Rig) -> Iterator[None]:
    web, cart = rig.services()
    rig.testbed.edit(rig.web, cart)
    yield
    rig.testbed.edit(web, cart)


class RollingRig(Rig):
    """A rig with two additional pods for the faulty Service."""

    new = ("new-1", "new-2")

    def prepare(self) -> None:
        for name in self.new:
            self.testbed.sandbox.add_pod(name)
            self.start_server(name)


@GROUP.row(
    "both endpoints are replaced, one after the other, as by a rolling update",
    Limits(fault_s=0.0),
    [Metric("endpoint_connections", OF_WEB)],
    rig=RollingRig,
)
def endpoints_replaced(rig: RollingRig) -> Iterator[None]:
    for pods, old in (((rig.new[0], "two"), "one"), (rig.new, "two")):
        rig.web_pods = pods
        rig.testbed.edit(*rig.services())
        rig.agent.wait_until_settled(*rig.services())
        pass_time(FLAP_S)
        rig.servers[old].stop()
    yield
