"""Builds views of a node without problems and of a node with many kinds of problems."""

from __future__ import annotations

import dataclasses

import msgspec

from tests.unit.causes.samples import a_note
from userspace_proxy.causes.cause import Cause, CauseCode, as_read
from userspace_proxy.causes.notes import no_node_address
from userspace_proxy.causes.services import (
    is_external_name,
    is_headless,
    unsupported_protocol,
)
from userspace_proxy.diagnosis.judge import judge
from userspace_proxy.diagnosis.paths import PathView
from userspace_proxy.facts import (
    EndpointFacts,
    FrontendFacts,
    HealthCheckFacts,
    IgnoredFacts,
    MemoryFacts,
    PortFacts,
    PortFigures,
    SourceFacts,
    StatusFacts,
    SteeringState,
    SyncFacts,
    WorkerFacts,
    facts_of_plan,
    facts_of_verdict,
)
from userspace_proxy.facts.node import Unencoded
from userspace_proxy.model import (
    Balance,
    Frontend,
    FrontendKind,
    Handling,
    IPFamily,
    PortKey,
    Protocol,
    ServicePortName,
    Side,
    SocketAddress,
)
from userspace_proxy.model.serving import Serving
from userspace_proxy.plan import PortPlan
from userspace_proxy.policy import EndpointVerdict, Scope

NOW = 1_763_600_000.0
STARTED = NOW - 3 * 86_400 - 4 * 3600
ASIDE = tuple(Unencoded.__annotations__)
_PLAN_FIELDS = frozenset(field.name for field in dataclasses.fields(PortPlan))
_SERVING_FIELDS = frozenset(Serving.__struct_fields__)


def make_address(text: str) -> SocketAddress:
    """Parse ``10.96.7.1:80``, ``[fd00::1]:80`` or ``anything`` into an address and port."""
    return SocketAddress.read(text) if ":" in text else SocketAddress(text, 80)


def replace(item, **changes):
    """Return a copy with changed fields; the verdict of a Service port is computed again."""
    if isinstance(item, Cause):
        return item.replace(**changes)
    if not isinstance(item, msgspec.Struct):
        return dataclasses.replace(item, **changes)
    if isinstance(item, PortFacts):
        if isinstance(path := changes.pop("path", None), PathView):
            names = (
                "path", "path_since", "path_reason", "kernel_connections", "socket_connections",
            )  # fmt: skip
            changes |= dict(zip(names, path, strict=False))
        plan = changes.pop("plan", item.plan)
        if plan is not item.plan:
            known = facts_of_plan(plan, item.frontends, item.endpoints)
            names = set(known.__struct_fields__) - set(PortFigures.__struct_fields__)
            kept = {"path", "path_since", "path_reason", "problem", "hint", "turned_away"}
            changes = {name: getattr(known, name) for name in names - kept - {"state"}} | changes
        perhaps_taken = changes.pop("perhaps_taken", item.perhaps_taken)
        port = msgspec.structs.replace(item, **changes)
        port.plan, port.perhaps_taken = plan, perhaps_taken
        port.state = judge(port)
        return port
    outside = {name: changes.pop(name) for name in ASIDE if name in changes}
    changed = msgspec.structs.replace(item, **changes)
    if isinstance(item, StatusFacts):
        for name in ASIDE:
            setattr(changed, name, outside.get(name, getattr(item, name)))
    return changed


def make_endpoint(
    address: str,
    state: str = "ready",
    is_usable: bool = True,
    node: str = "",
    **facts: object,
) -> EndpointFacts:
    """Return an endpoint in this state."""
    verdict = EndpointVerdict(make_address(address), is_usable, state, node, _code_of(state))
    return msgspec.structs.replace(facts_of_verdict(verdict), **facts)


def make_standby(address: str) -> EndpointFacts:
    """Return an endpoint of priority 1, on standby for a usable endpoint of priority 0."""
    verdict = EndpointVerdict(make_address(address), True, "ready", priority=1, is_standby=True)
    return facts_of_verdict(verdict)


def _code_of(state: str) -> CauseCode | None:
    if state.startswith("refused"):
        return CauseCode.ENDPOINT_NOT_ALLOWED
    if state.startswith("meant for"):
        return CauseCode.NOT_FOR_THIS_NODE
    codes = {"not ready": CauseCode.NOT_READY, "not on this node": CauseCode.NOT_LOCAL}
    return codes.get(state)


def make_frontend(
    address: str, kind: str, target: str, *, is_reached: bool = True
) -> FrontendFacts:
    """Return a frontend that is steered to a target."""
    return FrontendFacts(str(make_address(address)), kind, target, is_reached)


def make_ignored(
    service: str, port: str, reason: str | Cause, *, is_conflict: bool = False
) -> IgnoredFacts:
    """Return an ignored Service, given as ``namespace/name``."""
    cause = reason
    if not isinstance(reason, Cause) and is_conflict:
        cause = as_read(CauseCode.ADDRESS_TAKEN, reason, "", "Give one of them another address")
    elif not isinstance(reason, Cause):
        cause = as_read(CauseCode.NOT_OURS, reason)
    return IgnoredFacts(service, port, cause, is_conflict)


def make_health_check(
    service: str, port: int, local_endpoints: int, problem: str = ""
) -> HealthCheckFacts:
    """Return the health check node port of a Service, given as ``namespace/name``."""
    return HealthCheckFacts(service, port, local_endpoints, problem)


def _plan_frontend(one: FrontendFacts, protocol: Protocol) -> Frontend:
    kinds = {str(known): known for known in FrontendKind}
    return Frontend(*make_address(one.address), protocol, kinds.get(one.kind, one.kind))


def _plan_endpoint(one: EndpointFacts) -> EndpointVerdict:
    address = make_address(one.address)
    return EndpointVerdict(
        address,
        one.is_usable,
        one.state,
        one.node,
        one.code,
        one.weight,
        one.priority,
        one.is_standby,
    )


def _make_two_endpoints(number: int) -> tuple[EndpointFacts, ...]:
    return (
        make_endpoint(
            f"10.244.1.{number}:8080",
            node="node-a",
            active=7,
            connections=18_204,
            received_bytes=48_300_000,
            sent_bytes=1_220_000_000,
        ),
        make_endpoint(
            f"10.244.2.{number}:8080",
            node="node-b",
            active=5,
            connections=18_203,
            received_bytes=48_100_000,
            sent_bytes=1_180_000_000,
        ),
    )


def make_port(
    name: str = "web",
    *,
    namespace: str = "shop",
    port: str = "http",
    family: IPFamily = IPFamily.IPV4,
    side: Side = Side.ALL,
    frontends: tuple[FrontendFacts, ...] | None = None,
    endpoints: tuple[EndpointFacts, ...] | None = None,
    **changes: object,
) -> PortFacts:
    """Return a Service port that is served by two ready endpoints.

    Args:
        changes: Fields of plan, traffic or view; ``reason`` and ``notes`` may be plain text.
    """
    number = sum(map(ord, name)) % 200
    if frontends is None:
        frontends = (
            make_frontend(f"10.96.7.{number}:80", "ClusterIP", f"proxy port {20000 + number}"),
        )
    if endpoints is None:
        endpoints = _make_two_endpoints(number)
    verdicts = tuple(map(_plan_endpoint, endpoints))
    if reason := changes.pop("reason", ""):
        changes["cause"] = as_read(CauseCode.NOT_READY, str(reason))
    notes = changes.get("notes", ())
    changes["notes"] = tuple(n if isinstance(n, Cause) else a_note(n) for n in notes)
    serving = {key: changes.pop(key) for key in _SERVING_FIELDS & changes.keys()}
    usable = tuple(verdict.address for verdict in verdicts if verdict.is_usable)
    serving["endpoints"] = changes.pop("usable", usable)
    planned = {key: changes.pop(key) for key in _PLAN_FIELDS & changes.keys()}
    protocol = planned.pop("protocol", Protocol.TCP)
    plan = PortPlan(
        PortKey(ServicePortName(namespace, name, port), family, side),
        frontends=tuple(_plan_frontend(one, protocol) for one in frontends),
        protocol=protocol,
        verdicts=verdicts,
        serving=Serving(**serving),
        **planned,
    )
    facts = facts_of_plan(plan, frontends, endpoints)
    traffic = {"active": 12, "connections": 36_407, "received_bytes": 96_400_000}
    return replace(facts, **{**traffic, "sent_bytes": 2_400_000_000, **changes})


def make_view(*ports: PortFacts, **changes: object) -> StatusFacts:
    """Return a node without problems."""
    view = StatusFacts(
        version="0.1.0",
        node="node-a",
        started=STARTED,
        revision=4711,
        source=SourceFacts("kubernetes", "https://10.0.0.1:6443", is_synced=True),
        steering=SteeringState("nftables"),
        sync=SyncFacts(
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
    )
    view.config = (
        ("udpIdleTimeout", 120.0, "default"),
        ("steering", "nftables", "flag"),
        ("nodePortAddresses", ["primary"], "file"),
    )
    return replace(view, **changes)


def make_calm_view() -> StatusFacts:
    """Return the view of a small cluster that has Services of several kinds and no problem."""
    dns = make_port(
        "kube-dns",
        namespace="kube-system",
        port="dns",
        protocol=Protocol.UDP,
        frontends=(make_frontend("10.96.0.10:53", "ClusterIP", "proxy port 20002"),),
        affinity_timeout_s=10_800,
    )
    six = make_port(
        "web",
        family=IPFamily.IPV6,
        frontends=(make_frontend("[fd00:96::7:1]:80", "ClusterIP", "proxy port 20044"),),
        endpoints=(make_endpoint("[fd00:10:244::17]:8080", "ready", True, "node-a"),),
        active=0,
        connections=0,
        received_bytes=0,
        sent_bytes=0,
    )
    nodes = make_port(
        "shop-front",
        frontends=(
            make_frontend("10.96.7.9:80", "ClusterIP", "proxy port 20009"),
            make_frontend("192.0.2.10:30080", "NodePort", "proxy port 20010"),
            make_frontend("203.0.113.7:80", "LoadBalancer", "proxy port 20010"),
        ),
    )
    ignored = (
        make_ignored("default/legacy", "", is_external_name()),
        make_ignored("shop/db", "", is_headless()),
        make_ignored("voice/media", "rtp", unsupported_protocol("SCTP")),
    )
    workers = (WorkerFacts(0, 4711, 0, 20, 4), WorkerFacts(1, 4712, 0, 16, 0))
    return make_view(
        make_port("web"),
        six,
        dns,
        nodes,
        ignored=ignored,
        workers=workers,
        health_checks=(
            make_health_check("shop/checkout", 31_044, 0),
            make_health_check("shop/shop-front", 31_080, 2),
        ),
    )


def make_two_sides() -> tuple[PortFacts, PortFacts]:
    """Return a Service's two sides; outside clients are dropped for lack of a local endpoint."""
    front = make_port("front", handling=Handling(balance=Balance.LEAST_CONNECTIONS))
    outside = make_port(
        "front",
        side=Side.EXTERNAL,
        frontends=(make_frontend("192.0.2.10:30090", "NodePort", "proxy port 20100"),),
        endpoints=tuple(
            replace(e, state="not on this node", is_usable=False, code=CauseCode.NOT_LOCAL)
            for e in front.endpoints
        ),
        usable=front.plan.serving.endpoints,
        outside=(),
        reason="2 endpoints: 2 not on this node",
        scope=Scope.LOCAL_FROM_OUTSIDE,
        admits=("10.244.0.0/16", "127.0.0.0/8"),
        handling=Handling(balance=Balance.LEAST_CONNECTIONS),
    )
    return front, outside


def _make_troubled_ports() -> tuple[PortFacts, ...]:
    cart = make_port(
        "cart",
        endpoints=tuple(
            make_endpoint(f"10.244.3.{n}:8080", "not ready", False, "node-c", failures=n)
            for n in (4, 5, 6)
        ),
        reason="3 endpoints: 3 not ready",
        refused=1_294,
        active=0,
        frontends=(make_frontend("10.96.7.12:80", "ClusterIP", "refused"),),
    )
    pay = make_port(
        "payments",
        endpoints=(
            make_endpoint("10.244.1.7:8443", "ready", True, "node-a", connections=20, active=3),
            make_endpoint(
                "10.244.2.7:8443", "ready", True, "node-b", ejected_for_s=12.4, failures=31
            ),
            make_endpoint("10.244.2.8:8443", "terminating", False, "node-b", active=1),
        ),
        notes=(no_node_address(30443, "IPv4", ("192.0.2.0/24",)),),
    )
    search = make_port(
        "search",
        endpoints=(
            make_endpoint(
                "10.244.5.7:9200", "ready", True, "node-e", ejected_for_s=48.0, failures=88
            ),
        ),
    )
    clash = make_port(
        "admin",
        problem="cannot listen on 10.96.7.30:80/TCP: Address already in use",
        endpoints=(make_endpoint("10.244.1.30:80", "ready", True, "node-a"),),
        frontends=(make_frontend("10.96.7.30:80", "ClusterIP", "nowhere"),),
    )
    lonely = make_port("batch", endpoints=(), reason="it has no endpoints", refused=3)
    inward = make_port(
        "trick",
        endpoints=(
            make_endpoint("169.254.169.254:80", "refused: a link-local address", False, ""),
        ),
        reason="1 endpoint: 1 refused: a link-local address",
    )
    return cart, pay, search, clash, lonely, inward


def make_troubled_view() -> StatusFacts:
    """Return a node with many kinds of problems."""
    calm = make_calm_view()
    return replace(
        calm,
        ports=(*calm.ports, *_make_troubled_ports()),
        source=SourceFacts(
            "kubernetes",
            "https://10.0.0.1:6443",
            is_synced=True,
            problems=("cannot watch Services at https://10.0.0.1:6443: Connection refused",),
            restarts=4,
        ),
        steering=SteeringState(
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
        memory=MemoryFacts(120_000_000, 200_000_000, was_short=False),
        workers=(
            WorkerFacts(0, 4711, 2, 1_204, 310, ((0.001, 900), (0.02, 90), (None, 3)), 1.5),
            WorkerFacts(1, 0, 3, 0, 0, hung=1),
        ),
    )
