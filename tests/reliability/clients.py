"""Rows about many clients, slow or greedy clients, vanished clients, and spoofed addresses."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from tests.node.agents import HEALTH
from tests.node.clients import http_get, listen
from tests.node.manifests import Service

from .crowds import holding, run_crowd
from .evidence import LogLine, Metric
from .footprint import take_footprint
from .machine import LimitedAgent
from .paths import DNS, UdpRig
from .rig import Rig
from .row import Group, Limits

GROUP = Group("Clients")

SINK = Service("sink", "10.96.0.30", target=9000)
OF_SINK = (("service", "sink"),)
OF_WEB = (("service", "web"),)
OF_DNS = (("service", "dns"),)
SLOW, STORM, RESETS, STALLED, VANISHED, GREEDY = 2_500, 20_000, 3_000, 200, 300, 600
SYNS, SOURCES, SILENT, QUERIES = 20_000, 100_000, 200, 30
BACKLOG = 16_384
BUSY = "other Services' latency grows while clients keep all CPUs of the node busy"


class SinkRig(Rig):
    """A rig with a third Service, whose endpoint accepts connections but never reads."""

    def prepare(self) -> None:
        pod = self.testbed.sandbox.add_pod("sink")
        pod.run(["sysctl", "-qw", f"net.core.somaxconn={BACKLOG}"])
        server = self.resources.enter_context(listen(pod, SINK.target))
        server.listen(BACKLOG)
        self.crowd = self.testbed.sandbox.add_pod("crowd")
        self.crowd_2 = self.testbed.sandbox.add_pod("crowd-2")

    def services(self) -> tuple[Service, ...]:
        return (*super().services(), replace(SINK, endpoints=(str(self.pod("sink").ip),)))

    def is_fault(self, problem: dict[str, Any]) -> bool:
        """Return False for the third Service, whose endpoint never answers."""
        return SINK.name not in problem["port"]


def note(rig: Rig, crowd: dict[str, int], what: str, *, may_fail: float = 0.0) -> None:
    """Add a crowd's results to the rig's figures, and too many failures to its complaints."""
    made, failed = crowd["made"], crowd["failed"]
    rig.figures.append(f"{made - failed:,} of {made:,} {what}")
    if failed > may_fail * made:
        rig.complaints.append(f"{failed} of {made} failed: {crowd['errors']}")


@GROUP.row(
    f"{2 * SLOW:,} clients of two pods connect and send a few bytes of a request",
    Limits(memory_mib=60.0, other_p99_ms=500.0),
    [Metric("connections_active", OF_SINK)],
    rig=SinkRig,
    not_promised=BUSY,
)
def clients_slow(rig: SinkRig) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for pod in (rig.crowd, rig.crowd_2):
            crowd = stack.enter_context(holding(pod, SLOW, SINK.address, "GET /"))
            note(rig, crowd, f"slow clients of {pod.name} hold a connection")
        yield


@GROUP.row(
    f"{STORM:,} clients connect and ask as fast as they can, 500 at a time",
    Limits(fault_s=0.0, other_p99_ms=500.0),
    [Metric("connections", OF_WEB)],
    not_promised=BUSY,
)
def clients_storm(rig: Rig) -> Iterator[None]:
    crowd = run_crowd(rig.testbed["laptop"].host, "storm", STORM, rig.web.address)
    note(rig, crowd, "of the storm served")
    yield


@GROUP.row(
    f"{RESETS:,} clients connect and reset",
    Limits(fault_s=0.0, other_p99_ms=200.0),
    [Metric("connections", OF_SINK)],
    rig=SinkRig,
)
def clients_reset(rig: SinkRig) -> Iterator[None]:
    note(rig, run_crowd(rig.crowd, "reset", RESETS, SINK.address), "connected")
    yield


class SourceRig(SinkRig):
    """A rig in which the third Service's endpoint sends as many bytes as requested."""

    def prepare(self) -> None:
        self.testbed.sandbox.add_pod("sink").serve(None, source=SINK.target)
        self.crowd = self.testbed.sandbox.add_pod("crowd")


@GROUP.row(
    f"{STALLED} clients ask for 20 MB each and don't read",
    Limits(memory_mib=60.0, other_p99_ms=500.0),
    [Metric("connections_active", OF_SINK)],
    rig=SourceRig,
    not_promised=BUSY,
)
def clients_stalled(rig: SourceRig) -> Iterator[None]:
    before = take_footprint(rig)
    with holding(rig.crowd, STALLED, SINK.address, "20000000\n") as crowd:
        note(rig, crowd, "stalled readers hold a connection")
        yield
        grown = take_footprint(rig).grown_mib(before)
        rig.figures.append(f"the proxy's memory +{grown:.0f} MiB meanwhile")


@GROUP.row(
    f"{SYNS:,} SYNs from addresses that never answer",
    Limits(fault_s=1.0),
    [Metric("conntrack_entries")],
)
def clients_half_open(rig: Rig) -> Iterator[None]:
    run_crowd(rig.testbed["laptop"].host, "spoofed-syn", SYNS, rig.web.address)
    yield


class VanishingRig(SinkRig):
    """A rig with a crowd's pod, whose link and routes the row removes."""

    def prepare(self) -> None:
        super().prepare()
        self.gone |= {self.crowd.host_interface, str(self.crowd.ip), str(self.crowd.ip6)}


@GROUP.row(
    f"a container with {VANISHED} open connections vanishes without a FIN",
    Limits(settle_s=40.0),
    [Metric("connections_active", OF_SINK)],
    rig=VanishingRig,
)
def clients_vanish(rig: VanishingRig) -> Iterator[None]:
    with holding(rig.crowd, VANISHED, SINK.address) as crowd:
        note(rig, crowd, "connections were open")
        yield
        rig.crowd.drop_traffic()
    rig.crowd.close()


@GROUP.row(
    f"a UDP flood from {SOURCES:,} addresses",
    Limits(fault_s=1.0, settle_s=60.0, memory_mib=80.0, other_p99_ms=500.0),
    [Metric("connections", OF_DNS), Metric("datagrams_dropped", OF_DNS)],
    rig=UdpRig,
    not_promised="datagrams that arrive while the socket's buffer is full are lost, and counted; "
    "latency grows while the flood uses a CPU",
)
def clients_udp_flood(rig: UdpRig) -> Iterator[None]:
    run_crowd(rig.testbed["laptop"].host, "spoofed-udp", SOURCES, DNS.address)
    answered = rig.count_answers(QUERIES)
    rig.figures.append(f"{answered} of {QUERIES} queries of another client answered after it")
    if answered < QUERIES // 2:
        rig.complaints.append(f"{QUERIES - answered} UDP queries not answered")
    yield


class ThousandDescriptors(LimitedAgent):
    """An agent with 1,000 descriptors, which is the limit of many service managers."""

    limit = 1000


class GreedyRig(SinkRig):
    """A rig whose proxy has 1,000 descriptors."""

    flags = ("--workers=1",)
    agent_type = ThousandDescriptors


@GROUP.row(
    f"one pod opens {GREEDY} connections, more than the proxy's 1,000 descriptors allow",
    Limits(log_lines=20, other_p99_ms=1000.0, slowest_s=1.0),
    [Metric("connections_evicted", OF_SINK), LogLine("descriptor limit reached")],
    rig=GreedyRig,
    not_promised="at the descriptor limit others wait half a second until connections of the "
    "greedy pod end; with the usual limit this takes 30,000 connections",
)
def client_greedy(rig: GreedyRig) -> Iterator[None]:
    with holding(rig.crowd, GREEDY, SINK.address):
        yield


@GROUP.row(
    f"{SILENT} silent connections to the health port",
    Limits(),
    [Metric("process_open_fds")],
)
def status_ports_flooded(rig: Rig) -> Iterator[None]:
    address = (str(rig.testbed.node.ip), HEALTH)
    with holding(rig.testbed["pod"].host, SILENT, address):
        statuses = [http_get(rig.testbed["laptop"].tcp(), address, "/livez")[0] for _ in range(5)]
        rig.figures.append(f"5 of 5 probes answered {set(statuses)}")
        yield
