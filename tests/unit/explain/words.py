"""Writes the output of explain to one page, ``words.txt``, whose diff shows a change's effect.

``python -m tests.unit.explain.words`` writes it again. Each part shows a step only once.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace as with_fields
from pathlib import Path
from typing import Any

from tests.unit.causes.samples import a_note
from tests.unit.status.views import (
    NOW,
    make_address,
    make_endpoint,
    make_frontend,
    make_health_check,
    make_ignored,
    make_port,
    make_standby,
    make_troubled_view,
    make_two_sides,
    replace,
)
from userspace_proxy.causes.cause import Cause, CauseCode, When, as_read
from userspace_proxy.causes.endpoints import (
    denies,
    dial_failed,
    fault_on_purpose,
    no_datagram,
    refuses,
    resets,
    sends_nothing,
)
from userspace_proxy.causes.services import (
    balanced_elsewhere,
    dials_other_port,
    external_ip_off,
    no_proxy_header,
    not_listening,
    source_denied,
)
from userspace_proxy.causes.slices import none_local, none_ready, none_undrained
from userspace_proxy.diagnosis.clauses import planned_of
from userspace_proxy.diagnosis.paths import PathView
from userspace_proxy.diagnosis.rules import decide
from userspace_proxy.explain import Explanation, Invocation, explain, render_text
from userspace_proxy.explain.dial import DialResult, with_hosts
from userspace_proxy.explain.explanation import Subject
from userspace_proxy.explain.next_command import next_command
from userspace_proxy.explain.pods import foreign_slices, judge_pods
from userspace_proxy.facts import (
    EndpointFacts,
    FirewallFacts,
    LastStateFacts,
    PortFacts,
    ProbesFacts,
    RejectedFacts,
    SourceFacts,
    SteeringState,
    Waits,
)
from userspace_proxy.model import (
    DataPath,
    Endpoint,
    EndpointSlice,
    Failure,
    Handling,
    Hold,
    IPFamily,
    Protocol,
    Service,
    ServiceKey,
    SliceKey,
)
from userspace_proxy.model.endpoints import CONTROLLER
from userspace_proxy.model.pods import PodState

from .subjects import make_dead_endpoint, make_subject

WORDS = Path(__file__).parent / "words.txt"
POD, OTHER, ADDRESS = "10.244.1.8:80", "10.244.1.7:80", "10.96.7.118:80"
AT = make_address(POD)
OTHERS = dials_other_port(("10.96.7.1:81/TCP",), ("10.96.7.1:80/TCP",)).replace(count=44)
DENIED = source_denied(("198.51.100.0/24",)).replace(count=2, last_at=NOW - 4)
LOCAL = none_local(1, 0, "node-b", "externalTrafficPolicy")
EMPTY: dict[str, Any] = {"endpoints": (), "reason": "it has no endpoints"}
HOLDING = EMPTY | {"handling": Handling(hold=Hold(60))}
UNREAD = SourceFacts("manifests", "m", is_synced=True, problems=("m/b.yaml:1: bad",))
CHAIN = FirewallFacts("ip filter INPUT", "its policy is drop", "nft insert x")
HANGS = replace(sends_nothing(AT), count=3, last_at=NOW - 2)
KERNEL = PathView(DataPath.KERNEL)
DIALLED, REFUSED = (
    DialResult(0.0004),
    DialResult(
        0.0001,
        dial_failed(AT, Failure.REFUSED, os.strerror(errno.ECONNREFUSED)),
        os.strerror(errno.ECONNREFUSED),
    ),
)
UNROUTED = DialResult(
    0.0001, dial_failed(AT, Failure.NO_ROUTE, "no route"), "Network is unreachable", True
)


def failing(cause: Cause, **figures: Any) -> EndpointFacts:
    """Return an endpoint that fails with this cause."""
    return make_endpoint(POD, **{"connections": 20, **figures}, cause=cause)


def udp(*others: EndpointFacts, **figures: Any) -> PortFacts:
    """Return a UDP Service port whose first endpoint sends no reply."""
    stalled = failing(replace(no_datagram(AT), count=3), **figures)
    return make_port(protocol=Protocol.UDP, endpoints=(stalled, *others), sent_bytes=9)


def two_sides(*turned_away: Cause) -> Subject:
    """Return a Service that drops clients from outside the cluster."""
    inside, outside = make_two_sides()
    outside = replace(outside, cause=LOCAL, turned_away=turned_away)
    return make_subject(inside, outside, service="shop/front")


def rejecting(
    what: str,
    *details: str,
    port: PortFacts | None = None,
    service: str = "shop/web",
    **changes: Any,
) -> Subject:
    """Return a Service whose source has rejected an object with a mistake."""
    item = RejectedFacts("m/a.yaml:3: name: missing", what, *details, **changes)
    source = SourceFacts("m", "m", is_synced=True, problems=(item.line,), rejected=(item,))
    return make_subject(port or make_port(), service=service, source=source)


def on_node(*endpoints: EndpointFacts, there: PortFacts) -> Subject:
    """Return a planned Service whose plan for another node is ``there``."""
    subject = make_subject(make_port(endpoints=endpoints), is_live=False)
    _, verdict = decide(there)
    there.planned = planned_of(verdict.clauses)
    return with_fields(subject, on_node=[there])


def dialled(*endpoints: EndpointFacts, is_live: bool = True, **results: DialResult) -> Explanation:
    """Return a Service's explanation after a dial to its first endpoint, by default refused."""
    subject = make_subject(make_port(endpoints=endpoints), is_live=is_live)
    dials = with_hosts(subject.ports, {POD: results.get("of_pod", REFUSED)})
    return explain(subject, dials=dials)


_SUBJECTS: Mapping[str, Subject] = {
    "served": make_subject(),
    "no client has connected": make_subject(make_port(connections=0, sent_bytes=0)),
    "no client has been served": make_subject(make_port(connections=0, sent_bytes=0, refused=5)),
    "no byte in either direction, in one of two families": make_subject(
        make_port(),
        make_port(family=IPFamily.IPV6, connections=7, received_bytes=0, sent_bytes=0),
    ),
    "no byte has come back": make_subject(
        make_port(connections=50, received_bytes=25_000, sent_bytes=0)
    ),
    "not answered lately": make_subject(
        make_port(is_quiet=True, sent_at=NOW - 28 * 60, notes=("its mode isn't followed",))
    ),
    "planned": make_subject(is_live=False),
    "planned, and clients keep to an endpoint": make_subject(
        make_port(affinity_timeout_s=10_800), is_live=False
    ),
    "some clients are denied": make_subject(
        make_port(endpoints=(failing(denies(AT, "10.244.0.123").replace(count=5)),))
    ),
    "the only endpoint refuses": make_subject(make_port(endpoints=(make_dead_endpoint(POD),))),
    "one of two refuses, and answered before": make_subject(
        make_port(
            endpoints=(
                make_endpoint(OTHER),
                make_dead_endpoint(POD, connections=20, sent_bytes=9, node="node-b"),
            )
        )
    ),
    "it answered before, of UDP": make_subject(
        make_port(protocol=Protocol.UDP, endpoints=(failing(refuses(AT), sent_bytes=1),))
    ),
    "it only accepted before": make_subject(make_port(endpoints=(failing(refuses(AT)),))),
    "a reset, and a fault on purpose": make_subject(
        make_port(
            endpoints=(
                failing(replace(resets(AT), count=3)),
                failing(fault_on_purpose(AT, ("silent",))),
            )
        )
    ),
    "endpoints that aren't used": make_subject(
        make_port(
            endpoints=(
                make_endpoint(OTHER, connections=1),
                make_endpoint(POD, "not ready", False),
                make_endpoint("10.244.1.9:80", "not on this node", False, "node-b"),
                make_endpoint("10.244.1.10:80", ejected_for_s=5.0),
            )
        )
    ),
    "standby": make_subject(make_port(endpoints=(make_endpoint(OTHER), make_standby(POD)))),
    "many endpoints": make_subject(
        make_port(endpoints=tuple(make_endpoint(f"10.244.1.{n}:80") for n in range(1, 31)))
    ),
    "a limit, and saved connections": make_subject(
        make_port(handling=Handling(max_connections=3), saved=7)
    ),
    "UDP without an answer": make_subject(udp(sent_bytes=9)),
    "UDP, one of two without an answer": make_subject(udp(make_endpoint(OTHER, answered_at=1.0))),
    "notes": make_subject(make_port(notes=(a_note("its first field"), a_note("its second field")))),
    "a note beside another problem": make_subject(
        make_port(**EMPTY, notes=(external_ip_off("192.0.2.1", "not allowed"),))
    ),
    "an address of its load balancer": make_subject(
        make_port(notes=(balanced_elsewhere("203.0.113.9"),))
    ),
    "repaired": make_subject(steering=SteeringState("nftables", repairs=2, repaired_last_minute=2)),
    "repaired again and again": make_subject(
        steering=SteeringState("nftables", repairs=9, repaired_last_minute=9)
    ),
    "drift": make_subject(steering=SteeringState("nftables", problem="table vanished")),
    "without rules": make_subject(steering=SteeringState("none")),
    "it shuts down": make_subject(is_ready=False, is_draining=True),
    "a change waits": make_subject(sync=make_troubled_view().sync),
    "the source fails": make_subject(source=make_troubled_view().source),
    "the saved state": make_subject(last_state=LastStateFacts("f", served_at=NOW - 90)),
    "a chain": make_subject(firewalls=(CHAIN,)),
    "a chain that lets clients pass": make_subject(
        make_port(endpoints=(make_endpoint(OTHER, sent_at=NOW - 1),)), firewalls=(CHAIN,)
    ),
    "an object can't be read": rejecting("Service shop/web", services=("shop/web",)),
    "objects of others can't be read": rejecting("Service shop/cart", services=("shop/cart",)),
    "a file can't be read": rejecting(""),
    "an object without ports can't be read": rejecting(
        "Service shop/cart", services=("shop/cart",), service="shop/cart"
    ),
    "a slice can't be read": rejecting(
        "EndpointSlice shop/web-1",
        "EndpointSlice",
        "shop",
        "web-1",
        port=replace(make_port(endpoints=()), cause=as_read(CauseCode.NO_SLICE, "no slice")),
    ),
    "a health check isn't served": make_subject(
        health_checks=[make_health_check("shop/web", 30201, 1, "in use")]
    ),
    "an address isn't reached": make_subject(
        make_port(
            frontends=(make_frontend("192.0.2.1:30080", "NodePort", "held", is_reached=False),),
            problem="nginx has it",
        )
    ),
    "an address isn't reached, and another cause": make_subject(
        make_port(
            frontends=(make_frontend(ADDRESS, "ClusterIP", "proxy port 1", is_reached=False),),
            endpoints=(),
            problem="a chain",
            cause=as_read(CauseCode.PORT_NAME_MISSING, "they have no such port"),
        )
    ),
    "not served by design": make_subject(
        service="shop/db", ignored=(make_ignored("shop/db", "", "it is headless"),)
    ),
    "not served by design, and the source fails": make_subject(
        service="shop/db", source=UNREAD, ignored=(make_ignored("shop/db", "", "it is headless"),)
    ),
    "without ports": make_subject(service="shop/gone"),
    "one port isn't served": make_subject(
        ignored=(make_ignored("shop/web", "http", "held by shop/a", is_conflict=True),)
    ),
    "another port is refused": make_subject(make_port(), make_port(port="metrics", **EMPTY)),
    "refused, with further notes": make_subject(make_port(**EMPTY, notes=("a", "b"))),
    "clients from outside are dropped": two_sides(DENIED, replace(LOCAL, count=3)),
    "clients are dropped by source ranges": make_subject(make_port(turned_away=(DENIED,))),
    "clients dial another port": make_subject(
        make_port(connections=0, sent_bytes=0, other_ports=OTHERS)
    ),
    "clients without a PROXY header": make_subject(
        make_port(
            client_mistakes=(no_proxy_header("203.0.113.11").replace(count=20),), connections=0
        )
    ),
    "holding": make_subject(make_port(**HOLDING, waits=Waits(3, 12.0))),
    "waiting, and served": make_subject(make_port(waits=Waits(3, 12.0))),
    "clients would wait": make_subject(make_port(**HOLDING)),
    "on a node its endpoint would be refused": on_node(
        make_endpoint("127.0.0.1:80"),
        there=make_port(
            endpoints=(make_endpoint("127.0.0.1:80", "refused: a loopback address", False),),
            reason="its only endpoint is refused",
        ),
    ),
    "on a node by fewer endpoints": on_node(
        make_endpoint("127.0.0.1:80"),
        make_endpoint(OTHER),
        there=make_port(
            endpoints=(
                make_endpoint("127.0.0.1:80", "refused: a loopback address", False),
                make_endpoint(OTHER),
            )
        ),
    ),
    "the kernel path": make_subject(replace(make_port(connections=0), path=KERNEL)),
    "the kernel path, without a client": make_subject(
        replace(make_port(connections=0), path=PathView(DataPath.KERNEL, kernel_connections=0))
    ),
    "the kernel path, probed": make_subject(
        replace(make_port(is_probed=True), path=KERNEL), probes=ProbesFacts(3, 1.5, 2_000)
    ),
    "the kernel path of UDP": make_subject(
        replace(make_port(protocol=Protocol.UDP, connections=0), path=KERNEL)
    ),
}
_WEB = Service(ServiceKey("shop", "web"), (), selector=(("app", "web"),))
_CRASHES = {"reason": "it crashes"}


def pod(
    name: str = "web-1",
    reason: str = "",
    ports: tuple[str, ...] = ("http",),
    labels: tuple[tuple[str, str], ...] = (("app", "web"),),
) -> PodState:
    """Return a pod, which is unready if a reason is given."""
    return PodState(name, labels, not reason, reason, ports, (8080,))


_PODS: Mapping[str, tuple[tuple[PodState, ...], tuple[int | str, ...]]] = {
    "there are none": ((), ()),
    "one has nearly the label": (
        (pod("a", labels=(("app", "wbe"),)), pod("b", labels=(("app", "cart"),))),
        (),
    ),
    "they have other labels": ((pod("a", labels=(("role", "x"),)), pod("b", labels=())), ()),
    "they have no labels": ((pod("a", labels=()),), ()),
    "the only one isn't ready": ((pod(**_CRASHES),), ()),
    "two aren't ready": ((pod(**_CRASHES), pod("web-2", "its phase is Failed")), ()),
    "one of two is ready": ((pod(), pod("web-2", "it crashes")), ("http",)),
    "a named port is missing": ((pod(ports=("web", "admin")),), ("http",)),
    "no port has a name": ((pod(ports=()),), ("http",)),
    "one lacks the port": ((pod(), pod("web-2", ports=())), ("http",)),
    "another number": ((pod(),), (9090,)),
}


def of_steps() -> Iterator[tuple[str, Explanation]]:
    """Yield explanations that contain only the proxy's facts."""
    for name, subject in _SUBJECTS.items():
        yield name, explain(subject)
    front, ranges = two_sides(), make_subject(make_port(admits=("192.0.2.0/24",)))
    for name, subject, client in (
        ("all clients are admitted", make_subject(), "10.0.0.1"),
        ("a client in a range", ranges, "192.0.2.9"),
        ("a client that a chain may drop", make_subject(firewalls=(CHAIN,)), "10.0.0.1"),
        ("a client in no range", ranges, "10.0.0.1"),
        ("a client where a policy drops some", front, "198.51.100.1"),
        ("a client of another family", make_subject(), "fd00::1"),
    ):
        yield name, explain(subject, client=client)


def of_dials() -> Iterator[tuple[str, Explanation]]:
    """Yield explanations with results of dials."""
    used, unused = make_endpoint(POD), make_endpoint("10.244.1.9:80", "not ready", False)
    hanging = make_endpoint(POD, cause=HANGS, connections=3)
    yield "the used one accepts a dial", dialled(used, unused, of_pod=DIALLED)
    yield "the used one refuses a dial", dialled(used)
    yield "a dial of one that isn't used", dialled(make_endpoint(POD, "not ready", False))
    loopback = make_endpoint("127.0.0.1:80", "refused: a loopback address", False)
    yield "a dial beside one that is refused", dialled(used, loopback, of_pod=DIALLED)
    yield "no route, not on a node", dialled(used, is_live=False, of_pod=UNROUTED)
    yield "no route on a node", dialled(used, of_pod=UNROUTED)
    yield "a dial fails, clients are answered", dialled(make_endpoint(POD, answered_at=NOW - 5))
    yield "a dial fails as clients do", dialled(make_dead_endpoint(POD))
    yield "a dial fails otherwise", dialled(hanging)
    past = replace(hanging, cause=HANGS.replace(when=When.PAST), is_past=True)
    yield "a dial fails, clients failed before", dialled(past)
    yield "a dial of a host fails", dialled(make_endpoint(POD, host="db.example.com"))
    led = make_subject(replace(make_port(connections=0), path=KERNEL))
    accepting = {one.address: DIALLED for one in led.ports[0].endpoints}
    yield "the kernel path, dialled", explain(led, dials=accepting)
    stalled = make_subject(make_port(endpoints=(hanging,), connections=9, sent_bytes=0))
    silent = make_subject(make_port(endpoints=(used,), connections=9, sent_bytes=0))
    new = make_subject(make_port(connections=0))
    for name, subject, result in (
        ("it accepts dials and fails clients", stalled, {ADDRESS: DIALLED, POD: DIALLED}),
        ("it accepts dials and sends nothing", silent, {ADDRESS: DIALLED, POD: DIALLED}),
        ("its address accepts dials, slowly", make_subject(), {ADDRESS: DialResult(1.2)}),
        ("its address refuses dials", new, {ADDRESS: REFUSED}),
        ("its address has no route", new, {ADDRESS: UNROUTED}),
    ):
        yield name, explain(subject, dials=result)
    yield (
        "nothing can be dialled",
        explain(make_subject(), dials={}, invocation=Invocation(can_dial=False)),
    )


def _slice(*ips: str, manager: str = "") -> EndpointSlice:
    endpoints = tuple(map(Endpoint, ips))
    key = SliceKey("shop", "ext"), ServiceKey("shop", "web")
    return EndpointSlice(*key, IPFamily.IPV4, (), endpoints, manager=manager)


SLICES: Mapping[str, Sequence[EndpointSlice]] = {
    "written by a program": (_slice("10.244.3.200", "10.244.3.201", manager="vm-sync"),),
    "written by hand": (_slice("10.244.3.200"), _slice()),
    "many": (_slice(*(f"10.244.3.{number}" for number in range(30))),),
}


def listing(*pods: PodState, manager: str = CONTROLLER) -> Sequence[EndpointSlice]:
    """Return slices that list the pods with the Service's labels."""
    own = (one for one in pods if one.labels == _WEB.selector)
    ends = (Endpoint(f"10.244.3.{n}", ready=p.is_ready, pod=p.name) for n, p in enumerate(own))
    return (with_fields(_slice(manager=manager), endpoints=tuple(ends)),)


def of_pods() -> Iterator[tuple[str, Explanation]]:
    """Yield explanations with pods."""
    for name, (pods, targets) in _PODS.items():
        steps = judge_pods(_WEB, targets, pods, listing(*pods))
        yield f"pods: {name}", explain(make_subject(), pods=steps)
    two, unready = (pod(), pod("web-2")), pod("web-2", "it crashes")
    for name, pods, slices in (
        ("one isn't in a slice", two[:1], ()),
        ("two aren't in a slice", two, ()),
        ("one was replaced", two[1:], listing(pod())),
        ("one of two was replaced", (*two, pod("web-3")), listing(pod(), unready, pod("a"))),
        ("all are gone", (), listing(*two)),
        ("others list more", two, (*listing(pod("vm-1"), manager="vm-sync"), *listing(*two))),
    ):
        yield f"pods: {name}", explain(make_subject(), pods=judge_pods(_WEB, (), pods, slices))
    db = judge_pods(Service(ServiceKey("shop", "db"), ()), (), (), ())
    yield "pods: without a selector", explain(make_subject(), pods=db)
    for name, slices in SLICES.items():
        yield f"slices: {name}", explain(make_subject(), pods=foreign_slices(_WEB, slices))


LIVE, PLANNED = make_subject(), make_subject(is_live=False)
FILES = SourceFacts("manifests", "shop.yaml", is_synced=True)
FROM_FILES = make_subject(source=FILES)
NO_ENDPOINT = as_read(CauseCode.SLICE_EMPTY, "empty", "shop/web")
NOT_READY = none_ready(2, 0, ("pods", "-n", "shop", "-l", "app=web"))
DEAD = resets(make_address("[fd00::1]:80"))
FORBIDDEN = as_read(CauseCode.ENDPOINT_NOT_ALLOWED, "not dialled", "db.example.com")
_UNOPENED = not_listening("Address already in use", "")
_DROPPED = not_listening("a chain drops packets", "", "ip admin raw")
_WAY = no_datagram(POD).replace(answers_nodes=True)
_API = {"source": ("--kubeconfig=k",)}
NEXT: Mapping[str, tuple[Cause | None, Subject, Mapping[str, Any]]] = {
    "about the Service": (NO_ENDPOINT, LIVE, {}),
    "about an endpoint": (DEAD, LIVE, {}),
    "about a name": (FORBIDDEN, LIVE, {}),
    "what its slices drain": (none_undrained(1, ("drained",), "shop/web"), PLANNED, _API),
    "what isn't dialled": (FORBIDDEN, FROM_FILES, {}),
    "the pods are next": (NO_ENDPOINT, PLANNED, _API),
    "the pods were looked at": (NO_ENDPOINT, PLANNED, {**_API, "has_pods": True}),
    "kubectl has other flags": (
        NOT_READY,
        PLANNED,
        {"source": ("--master=https://a:1", "--hostname-override=n"), "has_pods": True},
    ),
    "another node has the endpoint": (LOCAL, PLANNED, _API),
    "another queried node has it": (LOCAL, PLANNED, {"source": (*_API["source"], "--node=n")}),
    "without a cluster": (DEAD, FROM_FILES, {}),
    "dialled": (DEAD, FROM_FILES, {"has_dialled": True}),
    "can't be dialled": (DEAD, FROM_FILES, {"can_dial": False}),
    "UDP isn't dialled": (DEAD, make_subject(make_port(protocol=Protocol.UDP), source=FILES), {}),
    "all is said": (NO_ENDPOINT, FROM_FILES, {"source": ("--server=:1",)}),
    "all of manifests is said": (NO_ENDPOINT, PLANNED, {"source": ("--manifests=m",)}),
    "about the node": (_UNOPENED, FROM_FILES, {}),
    "another node": (_UNOPENED, FROM_FILES, {"is_elsewhere": True}),
    "another program's chain": (_DROPPED, LIVE, {}),
    "a chain of another node": (_DROPPED, LIVE, {"is_elsewhere": True}),
    "the way from another node": (_WAY, LIVE, {"is_elsewhere": True, "can_dial": False}),
    "unknown code": (as_read(CauseCode("a-code-of-a-newer-proxy"), "?"), LIVE, {}),
    "served": (None, LIVE, {}),
    "served and dialled": (None, LIVE, {"has_dialled": True}),
    "as it was asked": (
        None,
        LIVE,
        {"program": ("python3", "-m", "userspace_proxy"), "others": ("--from=192.0.2.1",)},
    ),
    "quoted": (None, LIVE, {"program": ("/opt/a b/userspace-proxy",)}),
}
"""Inputs that select the next command: a cause, a Service and the command's arguments."""


def _lines(cases: Iterator[tuple[str, Explanation]]) -> Iterator[str]:
    seen: set[str] = set()
    for name, explanation in cases:
        yield f"{name}: {explanation.level}"
        steps, _, end = render_text(explanation).partition("\n\n")
        for line in steps.splitlines()[1:]:
            if line not in seen:
                yield f"  {line}"
            seen.add(line)
        yield from (f"  {line}" for line in end.splitlines())


def of_commands() -> Iterator[str]:
    """Yield a line for each element of NEXT, and lines for commands about a named pod."""
    for name, (cause, subject, asked) in NEXT.items():
        yield f"  {name}: {next_command(cause, subject, Invocation(**asked))}".rstrip()
    for name, cause in (("not ready", NOT_READY), ("labels", NO_ENDPOINT), ("another", DEAD)):
        command = next_command(cause, LIVE, Invocation(has_pods=True), pod="web-7")
        yield f"  about the pod that was named, {name}: {command}"


def parts() -> dict[str, str]:
    """Return the parts of the page by title."""
    lines = {
        "steps": _lines(of_steps()),
        "dials": _lines(of_dials()),
        "pods": _lines(of_pods()),
        "next": of_commands(),
    }
    return {title: "\n".join([f"# {title}", *part]) for title, part in lines.items()}


def is_on_the_page(title: str) -> bool:
    """Return whether a part is as recorded; ``python -m tests.unit.explain.words`` records."""
    return f"{parts()[title]}\n" in WORDS.read_text(encoding="utf-8")


if __name__ == "__main__":
    WORDS.write_text("\n".join([*parts().values(), ""]), encoding="utf-8")
