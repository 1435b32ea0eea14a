"""Views to show: a node where all is well, and one with every kind of trouble."""

from __future__ import annotations

from dataclasses import replace

from userspace_proxy.status.view import (
    EndpointView,
    FrontendView,
    HealthCheckView,
    IgnoredView,
    ServicePortView,
    SourceView,
    StatusView,
    SteeringView,
    SyncView,
    WorkerView,
)

NOW = 1_763_600_000.0
STARTED = NOW - 3 * 86_400 - 4 * 3600


def make_port(name: str = "web", **changes: object) -> ServicePortView:
    """Return a Service port that is served by two ready endpoints."""
    number = sum(map(ord, name)) % 200
    port = ServicePortView(
        namespace="shop",
        service=name,
        port="http",
        family="IPv4",
        protocol="TCP",
        frontends=(
            FrontendView(f"10.96.7.{number}:80", "ClusterIP", f"proxy port {20000 + number}"),
        ),
        endpoints=(
            EndpointView(
                f"10.244.1.{number}:8080",
                "ready",
                True,
                "node-a",
                active=7,
                connections=18_204,
                received_bytes=48_300_000,
                sent_bytes=1_220_000_000,
            ),
            EndpointView(
                f"10.244.2.{number}:8080",
                "ready",
                True,
                "node-b",
                active=5,
                connections=18_203,
                received_bytes=48_100_000,
                sent_bytes=1_180_000_000,
            ),
        ),
        reason="",
        active=12,
        connections=36_407,
        received_bytes=96_400_000,
        sent_bytes=2_400_000_000,
    )
    return replace(port, **changes)


def make_view(*ports: ServicePortView, **changes: object) -> StatusView:
    """Return a node where all is well."""
    view = StatusView(
        version="0.1.0",
        node="node-a",
        started=STARTED,
        revision=4711,
        source=SourceView("kubernetes", "https://10.0.0.1:6443", is_synced=True),
        steering=SteeringView("nftables"),
        sync=SyncView(
            rounds=812,
            last_s=0.0042,
            last_queued=NOW - 12.1,
            last_done=NOW - 12,
            service_changes=40,
            service_changes_pending=1,
            endpoint_changes=90,
            endpoint_changes_pending=2,
        ),
        ports=ports,
        descriptors=412,
        descriptor_limit=20_000,
        dropped_log_lines=7,
        config=(
            ("udpIdleTimeout", 120.0, "default"),
            ("steering", "nftables", "flag"),
            ("nodePortAddresses", ["primary"], "file"),
        ),
    )
    return replace(view, **changes)


def make_calm_view() -> StatusView:
    """Return a small cluster without trouble, all kinds of Services in it."""
    dns = make_port(
        "kube-dns",
        namespace="kube-system",
        port="dns",
        protocol="UDP",
        frontends=(FrontendView("10.96.0.10:53", "ClusterIP", "proxy port 20002"),),
        affinity_timeout_s=10_800,
    )
    six = make_port(
        "web",
        family="IPv6",
        frontends=(FrontendView("[fd00:96::7:1]:80", "ClusterIP", "proxy port 20044"),),
        endpoints=(EndpointView("[fd00:10:244::17]:8080", "ready", True, "node-a"),),
        active=0,
        connections=0,
        received_bytes=0,
        sent_bytes=0,
    )
    nodes = make_port(
        "shop-front",
        frontends=(
            FrontendView("10.96.7.9:80", "ClusterIP", "proxy port 20009"),
            FrontendView("192.0.2.10:30080", "NodePort", "proxy port 20010"),
            FrontendView("203.0.113.7:80", "LoadBalancer", "proxy port 20010"),
        ),
    )
    ignored = (
        IgnoredView("default/legacy", "", "type ExternalName is served by DNS alone"),
        IgnoredView(
            "shop/db", "", "it is headless (clusterIP: None): clients reach its endpoints directly"
        ),
        IgnoredView("voice/media", "rtp", "protocol SCTP is not supported (TCP and UDP are)"),
    )
    workers = (WorkerView(0, 4711, 0, 20, 4), WorkerView(1, 4712, 0, 16, 0))
    return make_view(
        make_port("web"),
        six,
        dns,
        nodes,
        ignored=ignored,
        workers=workers,
        health_checks=(
            HealthCheckView("shop/checkout", 31_044, 0),
            HealthCheckView("shop/shop-front", 31_080, 2),
        ),
    )


def make_two_sides() -> tuple[ServicePortView, ServicePortView]:
    """Return a Service port whose outside clients are dropped: this node has no endpoint."""
    reason = "2 endpoints: 2 not on this node"
    front = make_port("front", balance="least-connections")
    elsewhere = tuple(
        replace(e, state="not on this node", is_usable=False) for e in front.endpoints
    )
    outside = replace(
        front,
        side="external",
        frontends=(FrontendView("192.0.2.10:30090", "NodePort", "proxy port 20100"),),
        endpoints=elsewhere,
        reason=reason,
        is_dropping=True,
        policy="from outside: only this node's endpoints",
        admits=("10.244.0.0/16", "127.0.0.0/8"),
    )
    return front, outside


def make_troubled_view() -> StatusView:
    """Return a node at 3 am."""
    cart = make_port(
        "cart",
        endpoints=tuple(
            EndpointView(f"10.244.3.{n}:8080", "not ready", False, "node-c", failures=n)
            for n in (4, 5, 6)
        ),
        reason="3 endpoints: 3 not ready",
        refused=1_294,
        active=0,
        frontends=(FrontendView("10.96.7.12:80", "ClusterIP", "refused"),),
    )
    pay = make_port(
        "payments",
        endpoints=(
            EndpointView("10.244.1.7:8443", "ready", True, "node-a", connections=20, active=3),
            EndpointView(
                "10.244.2.7:8443", "ready", True, "node-b", ejected_for_s=12.4, failures=31
            ),
            EndpointView("10.244.2.8:8443", "terminating", False, "node-b", active=1),
        ),
        notes=("node port 30443 is not served: this node has no IPv4 address for it",),
    )
    search = make_port(
        "search",
        endpoints=(
            EndpointView(
                "10.244.5.7:9200", "ready", True, "node-e", ejected_for_s=48.0, failures=88
            ),
        ),
    )
    clash = make_port(
        "admin",
        problem="cannot listen on 10.96.7.30:80/TCP: Address already in use",
        endpoints=(EndpointView("10.244.1.30:80", "ready", True, "node-a"),),
        frontends=(FrontendView("10.96.7.30:80", "ClusterIP", "nowhere"),),
    )
    lonely = make_port("batch", endpoints=(), reason="it has no endpoints", refused=3)
    inward = make_port(
        "trick",
        endpoints=(EndpointView("169.254.169.254:80", "refused: link-local address", False, ""),),
        reason="1 endpoint: 1 refused: link-local address",
    )
    calm = make_calm_view()
    return replace(
        calm,
        ports=(*calm.ports, cart, pay, search, clash, lonely, inward),
        source=SourceView(
            "kubernetes",
            "https://10.0.0.1:6443",
            is_synced=True,
            problems=("cannot watch Services at https://10.0.0.1:6443: Connection refused",),
            restarts=4,
        ),
        steering=SteeringView(
            "nftables",
            problem="table inet userspace-proxy vanished three times in a minute",
            repairs=3,
            helper_restarts=2,
        ),
        sync=replace(
            calm.sync,
            waiting_since=NOW - 190,
            last_done=NOW - 204,
            last_queued=NOW - 20,
            problem="cannot steer 10.96.7.1:80/TCP: Operation not permitted",
        ),
        descriptors=18_700,
        workers=(
            WorkerView(0, 4711, 2, 1_204, 310, ((0.001, 900), (0.02, 90), (None, 3)), 1.5),
            WorkerView(1, 0, 3, 0, 0),
        ),
    )
