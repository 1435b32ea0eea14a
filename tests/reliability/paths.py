"""Rows about the network to endpoints: slow, lossy or cut links, lost nodes, exhausted ports."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace

from tests.node.manifests import Service
from userspace_proxy.policy.locality import FIRST_PORT, LAST_PORT
from userspace_proxy_testing.sandbox import SandboxNode

from .crowds import holding
from .endpoints import EJECTED, FAILURES, OF_WEB, ONE_OF_TWO
from .evidence import LogLine, Metric, Problem, Slower
from .link import Link
from .relay import Conditions
from .rig import Rig
from .row import Group, Limits

GROUP = Group("Ways to endpoints")

NO_LATENCY = (
    "`observe --slow=0.1s` names the slow endpoint, not the metric; the other one gets more "
    "clients only if the Service balances by connections"
)
HELD = 50
KERNELS_PORTS = 200
PORTS = KERNELS_PORTS + LAST_PORT - FIRST_PORT + 1


class RelayedRig(Rig):
    """A rig in which packets of the first endpoint pass the relay."""

    def prepare(self) -> None:
        self.link = Link(self.testbed.node, self.pod("one"))
        self.resources.callback(self.link.close)


@GROUP.row(
    "packets to and from one of two endpoints take 100 ms each",
    Limits(slowest_s=1.0),
    [Slower("connect_duration_seconds", "0.1", OF_WEB)],
    rig=RelayedRig,
    not_promised=NO_LATENCY,
)
def endpoint_slow(rig: RelayedRig) -> Iterator[None]:
    rig.link.set(Conditions(delay_s=0.1))
    yield
    rig.link.set()


@GROUP.row(
    "the link to one of two endpoints loses 2 % of the packets and reorders 5 %",
    Limits(slowest_s=3.0, fault_s=4.0),
    [Metric("endpoint_connections", OF_WEB)],
    rig=RelayedRig,
    not_promised="a lost packet is sent again after 0.2 s, a SYN after 1 s, and then the other "
    "endpoint is dialled",
)
def endpoint_lossy(rig: RelayedRig) -> Iterator[None]:
    rig.link.set(Conditions(delay_s=0.01, loss=0.02, reordered=0.05))
    yield
    rig.link.set()


@GROUP.row(
    "the link to one of two endpoints is cut",
    Limits(slowest_s=1.5),
    [FAILURES, ONE_OF_TWO, EJECTED],
    rig=RelayedRig,
)
def endpoint_cut_off(rig: RelayedRig) -> Iterator[None]:
    rig.link.set(Conditions(is_cut=True))
    yield
    rig.link.set()


@GROUP.row(
    f"the link to one of two endpoints carries 1 Mbit/s, and {HELD} clients upload across it",
    Limits(failed=0.05, slowest_s=6.0, fault_s=4.0),
    [Metric("connections_active", OF_WEB)],
    rig=RelayedRig,
    not_promised="clients of that endpoint share its link, and are slow",
)
def link_of_1_mbit(rig: RelayedRig) -> Iterator[None]:
    rig.link.set(Conditions(bits_per_s=1e6))
    text = "POST / HTTP/1.0\r\nContent-Length: 100000\r\n\r\n" + "x" * 60_000
    with holding(rig.testbed["laptop"].host, HELD, rig.web.address, text) as crowd:
        rig.figures.append(f"{crowd['made'] - crowd['failed']} uploads open")
        yield
        rig.link.set()


class TwoNodesRig(Rig):
    """A rig whose first endpoint is a pod on another node."""

    def prepare(self) -> None:
        self.far: SandboxNode = self.testbed.sandbox.add_node()
        pod = self.far.add_pod("far")
        pod.serve(None, tcp=8080)
        self.web_pods = ("far", "two")


@GROUP.row(
    "the node of one of two endpoints leaves the network",
    Limits(slowest_s=1.5),
    [FAILURES, ONE_OF_TWO, EJECTED],
    rig=TwoNodesRig,
)
def node_gone(rig: TwoNodesRig) -> Iterator[None]:
    # Set the router's end of the link down, because the node's own end would lose its routes.
    rig.testbed.sandbox.lan.configure(["link set node1 down"])
    yield
    rig.testbed.sandbox.lan.configure(["link set node1 up"])


class FewPortsRig(Rig):
    """A rig with one endpoint that sees the node's address, which has few ephemeral ports."""

    flags = ("--workers=2", "--preserve-client-address=never")
    web_pods = ("one",)

    def is_well(self) -> bool:
        """Return whether the shortage of ports, shown for a minute, is the only problem, if any."""
        with contextlib.suppress(OSError):
            problems = self.agent.status()["problems"]
            return all("no free source port" in problem["what"] for problem in problems)
        return False


@GROUP.row(
    f"all {PORTS:,} source ports of the node towards the only endpoint are in use",
    Limits(failed=1.0, other_p99_ms=500.0, back_s=3.0),
    [
        Metric("local_shortages", OF_WEB),
        Problem("no free source port"),
        LogLine("dial failed, out of local ports"),
    ],
    rig=FewPortsRig,
    not_promised="the kernel allows one connection from a source port to an endpoint, so further "
    "clients are reset; the page names the sysctls; latency grows while thousands connect",
)
def source_ports_used_up(rig: FewPortsRig) -> Iterator[None]:
    sysctl = "net.ipv4.ip_local_port_range"
    before = rig.testbed.shell(f"sysctl -n {sysctl}").strip()
    rig.testbed.shell(f"sysctl -qw {sysctl}='40000 {40000 + KERNELS_PORTS - 1}'")
    with holding(rig.testbed["laptop"].host, PORTS + 20, rig.web.address):
        yield
    rig.testbed.shell(f"sysctl -qw {sysctl}='{before}'")


DNS = Service("dns", "10.96.0.53", 53, "UDP", target=53)
QUERIES = 50


class UdpRig(Rig):
    """A rig with an additional UDP Service, which has two endpoints."""

    def services(self) -> tuple[Service, ...]:
        ips = tuple(str(self.pod(name).ip) for name in self.web_pods)
        return (*super().services(), replace(DNS, endpoints=ips))

    def prepare(self) -> None:
        self.dns = {name: self.pod(name).serve(None, udp=53) for name in self.web_pods}

    def count_answers(self, count: int) -> int:
        """Send this many queries, each from its own port; return the number of answers."""
        return sum(self._is_answered() for _ in range(count))

    def _is_answered(self) -> bool:
        with self.testbed["pod"].new_udp() as sock:
            sock.settimeout(1.0)
            sock.connect(DNS.address)
            with contextlib.suppress(OSError):
                sock.send(b"query")
                return bool(sock.recv(100))
        return False


@GROUP.row(
    "one of two endpoints of a UDP Service refuses datagrams",
    Limits(settle_s=45.0),
    [Metric("endpoint_failures", (("service", "dns"),)), Problem("refuse")],
    rig=UdpRig,
    not_promised="the endpoint isn't ejected, as a network policy may have refused the client's "
    "address; each new flow moves on at once",
)
def udp_endpoint_refuses(rig: UdpRig) -> Iterator[None]:
    rig.dns["one"].stop()
    answered = rig.count_answers(QUERIES)
    rig.figures.append(f"{answered} of {QUERIES} UDP queries answered")
    if answered < QUERIES:
        rig.complaints.append(f"{QUERIES - answered} UDP queries not answered")
    yield
    rig.dns["one"] = rig.pod("one").serve(None, udp=53)
    # Only after new flows does the page show that a UDP Service works again.
    rig.count_answers(QUERIES)
