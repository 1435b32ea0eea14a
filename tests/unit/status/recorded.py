"""Renders a node with all features in every format and compares the bytes with a recording.

    an artificial node ──▶ JSON, metrics, page, text, top, explain ──▶ recorded_bytes/

To record intended changes: ``python -m tests.unit.status.recorded``.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

from tests.unit.causes.samples import a_note
from userspace_proxy.agent.rounds.options import Options
from userspace_proxy.causes.cause import CauseCode
from userspace_proxy.causes.endpoints import dial_failed, refuses, resets
from userspace_proxy.causes.services import source_denied
from userspace_proxy.diagnosis.incidents import Incidents
from userspace_proxy.diagnosis.judge import diagnose
from userspace_proxy.diagnosis.paths import PathView
from userspace_proxy.explain import explain, read_subject, render_json, render_text
from userspace_proxy.explain.planned import plan_status
from userspace_proxy.facts import (
    BridgeFacts,
    ClientAddressFacts,
    EndpointFacts,
    FirewallFacts,
    FrontendFacts,
    KernelFacts,
    KernelLackFacts,
    LastStateFacts,
    PortFacts,
    ProbesFacts,
    StatusFacts,
    Times,
    TotalsFacts,
    TrackingFacts,
    UnservedFacts,
    Waits,
)
from userspace_proxy.facts.encoding import encode_answer, read_answer
from userspace_proxy.facts.node import PlanFacts
from userspace_proxy.facts.processes import ProcessFacts
from userspace_proxy.model import (
    Balance,
    DataPath,
    Failure,
    Handling,
    Hold,
    IPFamily,
    Protocol,
    ProxyProtocol,
    ServiceKey,
    Side,
)
from userspace_proxy.policy import PathDecision
from userspace_proxy.sources.manifests import load_state
from userspace_proxy.status.answers import make_answer, render_configz, render_status
from userspace_proxy.status.exposition import write_families
from userspace_proxy.status.families import families_of, render_demand
from userspace_proxy.status.history import History
from userspace_proxy.status.page import build_page, render_incident, render_page, render_parts
from userspace_proxy.status.sampling import Sample
from userspace_proxy.status.selection import Selection, row_id
from userspace_proxy.status.stream import Changes
from userspace_proxy.status.text import render_text as render_status_text
from userspace_proxy.status.text import render_top

from .views import (
    NOW,
    make_address,
    make_endpoint,
    make_health_check,
    make_ignored,
    make_port,
    make_standby,
    make_troubled_view,
    make_two_sides,
    make_view,
    replace,
)

RECORDED = Path(__file__).parent / "recorded_bytes"
METERED = {"orders", "front", "log", "idle", "fast", "uncounted", "back", "admin", "cart"}
"""The Services whose metrics are recorded; the other Services add no kind of series."""

_TIMES = Times((0.001, 0.01, 1.0), (9, 5, 0, 2), 3.25)
_FIRST_BYTES = Times((0.001, 0.01, 1.0), (1, 0, 0, 0), 0.0005)
_FAILURES = {CauseCode.ENDPOINT_REFUSES: 3, CauseCode.ENDPOINT_SILENT: 1}

_MANIFEST = """\
apiVersion: v1
kind: Service
metadata:
  name: web
  namespace: shop
  annotations: {userspace-proxy.io/hold: 10s, userspace-proxy.io/balance: random}
spec: {type: NodePort, clusterIP: 10.96.0.10, ports: [{name: http, port: 80, nodePort: 30080}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, namespace: shop, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints: [{addresses: [10.244.0.2]}, {addresses: [10.244.0.3], conditions: {ready: false}}]
---
apiVersion: v1
kind: Service
metadata: {name: db, namespace: shop}
spec: {clusterIP: None, ports: [{port: 80}]}
"""


def _endpoints() -> tuple[EndpointFacts, ...]:
    dead, ends = make_address("10.244.6.2:8080"), make_address("10.244.6.3:8080")
    seen = {"first_at": NOW - 90, "last_at": NOW - 3}
    failing = replace(dial_failed(dead, Failure.REFUSED, "Connection refused"), count=4, **seen)
    one = make_endpoint(
        "10.244.6.1:8080",
        node="node-a",
        active=2,
        connections=41,
        preserved=40,
        received_bytes=10,
        answered_at=NOW - 1,
    )
    return (
        replace(one, weight=300, starting=0.25, preference="weight 300, starts slowly: 25 %"),
        replace(
            make_endpoint("10.244.6.2:8080", node="node-b", failures=4, cause=failing),
            ejected_for_s=7.5,
            failures_by_cause=_FAILURES,
            answered_at=NOW - 100,
        ),
        make_endpoint(
            "10.244.6.3:8080", resets=4, empty=2, cause=replace(resets(ends), count=6, **seen)
        ),
        make_standby("10.244.6.4:8080"),
        make_endpoint("10.244.6.5:8080", "terminating", True),
        make_endpoint("10.244.6.6:8080", "terminating", False),
        make_endpoint("10.244.6.7:8080", "meant for other zones", False),
        make_endpoint("127.0.0.1:8080", "refused: a loopback address", False),
    )


def _orders() -> PortFacts:
    """Return a Service port with a value in every counter."""
    return make_port(
        "orders",
        port="",
        endpoints=_endpoints(),
        handling=Handling(
            balance=Balance.LEAST_CONNECTIONS,
            hold=Hold(30.0, 100),
            slow_start_s=60.0,
            max_connections=50,
            removal_s=5.0,
            proxy_protocol=ProxyProtocol.V2,
        ),
        affinity_timeout_s=600,
        admits=("203.0.113.0/24",),
        notes=(a_note("annotation userspace-proxy.io/x is unknown"),),
        preserved=40,
        failures=4,
        resets=4,
        empty=2,
        failures_by_cause=_FAILURES,
        saved=3,
        connect_times=_TIMES,
        first_byte_times=_FIRST_BYTES,
        refused=6,
        denied=7,
        turned_away=(replace(source_denied(("203.0.113.0/24",)), count=7, last_at=NOW - 8),),
        dropped_datagrams=8,
        evicted=9,
        evicted_for_memory=2,
        ended_by_removal=10,
        bad_headers=11,
        shortages=12,
        waits=Waits(
            2,
            4.5,
            total=30,
            timeouts=3,
            overflows=2,
            client_aborts=1,
            problem="deployments.apps is forbidden",
        ),
        is_out_of_ports=True,
        is_out_of_client_ports=True,
    )


def _others() -> Iterator[PortFacts]:
    """Yield Service ports on each path, with ``hold``, with UDP, and without an address."""
    choice = PathDecision(DataPath.AUTO, "its annotation")
    in_kernel = PathView(DataPath.KERNEL, NOW - 600, "probes are answered", 1_234)
    yield replace(make_port("fast", path=choice), path=in_kernel)
    uncounted = in_kernel._replace(kernel_connections=None, why="")
    yield replace(make_port("uncounted", path=choice), path=uncounted)
    left = PathView(DataPath.USERSPACE, NOW - 5, "a probe failed", 9)
    yield replace(make_port("back"), path=left)
    yield make_port(
        "idle",
        endpoints=(),
        reason="it has no endpoints",
        frontends=(),
        handling=Handling(hold=Hold(60.0, 10)),
        waits=Waits(1, 0.5, total=1),
    )
    yield make_port("log", protocol=Protocol.UDP, family=IPFamily.IPV6, dropped_datagrams=5)
    yield make_port("full", waits=Waits(3, 1.5, total=3), handling=Handling(max_connections=4))


def _small() -> Iterator[PortFacts]:
    """Yield Service ports of a second node, in states that the first node lacks."""
    yield make_port("quiet", is_quiet=True, sent_at=NOW - 28 * 60)
    yield make_port("mute", connections=7, received_bytes=0, sent_bytes=0)
    for protocol, name in ((Protocol.UDP, "dns"), (Protocol.TCP, "dns-tcp")):
        yield make_port("dns", port=name, protocol=protocol, shared_number=53)
    yield make_port("moved", frontends=(FrontendFacts("127.64.1.4:80", only_at="127.64.1.4:171"),))
    dead = refuses("10.244.6.9:8080").replace(count=12, first_at=NOW - 900, last_at=NOW - 2)
    gone = make_endpoint("10.244.6.9:8080", node="node-7", cause=dead)
    for name in ("twin-a", "twin-b"):
        yield make_port(name, endpoints=(gone,), refused=3, saved=2)


def make_rich_view() -> StatusFacts:
    """Return a node with content in every part."""
    troubled = make_troubled_view()
    taken = make_ignored("shop/late", "https", "10.96.7.1 is that of shop/web", is_conflict=True)
    view = replace(
        troubled,
        ports=(*troubled.ports, *make_two_sides(), _orders(), *_others()),
        last_state=LastStateFacts("/var/lib/x", NOW - 77, "disk full", NOW - 300, 4),
        demand={ServiceKey("shop", "idle"): 3},
        probes=ProbesFacts(12, 0.5, 100, 4_000, 5),
        client_address=ClientAddressFacts(
            is_on=True, repairs=2, bridges=(BridgeFacts("cni0", "IPv4", "no module", "modprobe x"),)
        ),
        tracking=TrackingFacts(240_000, 262_144, 17, is_dropping=True),
        firewalls=(FirewallFacts("table ip filter, INPUT", "its policy is drop", "accept it"),),
        unserved=(UnservedFacts("cannot listen on 192.0.2.1:10249", "use another address"),),
        totals=TotalsFacts(
            active=53,
            connections=9_000,
            failures=4,
            preserved=40,
            received_bytes=7_000_000,
            sent_bytes=8_000_000,
            resets=4,
            empty=2,
            failures_by_cause=_FAILURES,
            saved=3,
            connect_times=_TIMES,
            first_byte_times=_FIRST_BYTES,
            refused=1_303,
            denied=7,
            dropped_datagrams=13,
            evicted=9,
            evicted_for_memory=2,
            ended_by_removal=10,
            bad_headers=11,
            shortages=12,
            waits=Waits(6, 4.5, total=34, timeouts=3, overflows=2, client_aborts=1),
            kernel_connections=2_477,
        ),
        ignored=(*troubled.ignored, taken),
        health_checks=(
            *troubled.health_checks,
            make_health_check("shop/web", 31_001, 2, "cannot listen on 0.0.0.0:31001"),
        ),
        worker_problems=("worker 1 does not run",),
        network_namespace=4_026_531_840,
        kernel=KernelFacts(
            "5.10.0-32-amd64",
            [KernelLackFacts("numgen", "the kernel path", "the proxy", "modprobe nft_numgen")],
        ),
        node_is_eligible=False,
        plan=PlanFacts(1, "8ce2ffdc561a28b6", 2, ["8ce2ffdc", "561a28b6"]),
        process=ProcessFacts(12.5, 70_000_000),
        settings={"workers": 2},
    )
    view.ports = diagnose(view.ports, view.source, view.health_checks)
    return view


def _history(view: StatusFacts) -> History:
    """Return a history of three seconds in which the counters of one Service port grow."""
    history = History()
    for second in range(3):
        growing = make_port(
            "web", connections=100 * second, sent_bytes=5_000 * second, saved=second
        )
        others = [port for port in view.ports if port.plan.key != growing.plan.key]
        history.note([growing, *others], 100.0 + second)
    return history


def _explained(view: StatusFacts, folder: Path) -> Iterator[tuple[str, str]]:
    status = read_answer(render_status(view, now=NOW))
    for name in ("web", "orders", "payments", "fast", "front", "idle", "late", "media"):
        namespace = "voice" if name == "media" else "shop"
        subject = read_subject(status, f"{namespace}/{name}", "the proxy at x", is_live=True)
        yield f"explain-{name}", render_text(explain(subject, client="198.51.100.7"))
        if name == "payments":
            yield "explain-payments-json", render_json(explain(subject))
    path = folder / "shop.yaml"
    path.write_text(_MANIFEST)
    snapshot = load_state(path).snapshot
    planned = plan_status(snapshot, Options(), now=NOW, steering="none")
    body = render_status(planned, now=NOW)
    yield "planned", json.dumps(json.loads(body))
    for service in ("shop/web", "shop/db"):
        subject = read_subject(planned, service, "shop.yaml", is_live=False)
        yield f"explain-planned-{service[5:]}", render_text(explain(subject))


def _rendered(view: StatusFacts) -> Iterator[tuple[str, bytes]]:
    history = _history(view)
    sample = Sample(view, NOW, history)
    yield "status.json", render_status(view, now=NOW)
    yield "status-search.json", render_status(view, now=NOW, selection=Selection(q="is:problem"))
    yield "status-one.json", render_status(view.only("shop/front"), now=NOW)
    summary = make_answer(view, now=NOW, selection=Selection()).summarised({"shop/web"})
    yield "status-summary.json", encode_answer(summary)
    yield "configz.json", render_configz(view)
    yield "demand.json", render_demand(view)
    yield from _metrics(replace(view, ports=[p for p in view.ports if p.service in METERED]))
    page = render_page(sample, Selection(open=tuple(_rows_of_each_kind(view))))
    yield "page.html", page
    searched = render_page(sample, Selection(q="orders", sort="-saved"))
    yield "page-search.html", _lines_beside(page, searched)
    wide = {"history": history, "is_wide": True}
    yield "text.txt", render_status_text(view, now=NOW).body
    yield "text-wide.txt", render_status_text(view, now=NOW, **wide).body
    yield "top.txt", render_top(view, selection=Selection(sort="-rate"), history=history).body
    yield from _rendered_small()
    changes = Changes()
    for shown in (view.only("shop/web"), view.only("shop/orders")):
        answer = make_answer(shown, now=NOW, selection=Selection())
        yield f"watch-{shown.ports[0].plan.key.name.name}.json", changes.line(answer)


def _metrics(view: StatusFacts) -> Iterator[tuple[str, bytes]]:
    """Yield the metrics that each level of detail adds to the previous level."""
    before = b""
    for detail in ("node", "service", "endpoint"):
        text = write_families(families_of(view, detail), open_metrics=False)
        yield f"metrics-{detail}.txt", text.removeprefix(before)
        before = text


def _rows_of_each_kind(view: StatusFacts) -> Iterator[str]:
    """Yield the rows to expand; the details of the other rows add no kind of line."""
    expanded = {"orders", "idle", "fast", "back", "full", "web"}
    for port in view.ports:
        key = port.plan.key
        if key.name.name in expanded or key.side is Side.EXTERNAL:
            yield row_id(key)


def _lines_beside(page: bytes, other: bytes) -> bytes:
    """Return the lines of ``other`` that ``page`` lacks."""
    known = set(page.splitlines())
    return b"\n".join(line for line in other.splitlines() if line not in known)


def _rendered_small() -> Iterator[tuple[str, bytes]]:
    view = make_view(*_small())
    view.ports = diagnose(view.ports, view.source, view.health_checks)
    sample = Sample(view, NOW)
    quiet = row_id(view.ports[0].plan.key)
    parts = render_parts(build_page(sample, Selection(open=(quiet,))))
    yield "page-small.html", "\n".join(parts.html[row] for row in parts.rows).encode()
    yield "text-small.txt", render_status_text(view, now=NOW).body
    (twins,) = Incidents(view).all(least=2)
    yield "incident.html", render_incident(sample, twins.id)


def changed(folder: Path, *prefixes: str) -> list[str]:
    """Return the names of files that differ from the recorded ones.

    Args:
        folder: An empty folder, as for render_all().
        prefixes: Prefixes of the files to compare.
    """
    rendered = {
        name: body for name, body in render_all(folder).items() if name.startswith(prefixes)
    }
    recorded = {
        path.name: path.read_bytes()
        for path in RECORDED.iterdir()
        if path.name.startswith(prefixes)
    }
    return sorted(
        name
        for name in rendered.keys() | recorded.keys()
        if rendered.get(name) != recorded.get(name)
    )


def render_all(folder: Path) -> dict[str, bytes]:
    """Return all rendered files by name.

    Args:
        folder: An empty folder, for a manifest.
    """
    with _utc():
        return _all(folder)


@contextlib.contextmanager
def _utc() -> Iterator[None]:
    """Make pages show times of day in UTC on any machine."""
    before = os.environ.get("TZ")
    os.environ["TZ"] = "UTC"
    time.tzset()
    try:
        yield
    finally:
        if before is None:
            del os.environ["TZ"]
        else:
            os.environ["TZ"] = before
        time.tzset()


def _all(folder: Path) -> dict[str, bytes]:
    view = make_rich_view()
    explained = {f"{name}.txt": text.encode() for name, text in _explained(view, folder)}
    return {**dict(_rendered(view)), **explained}


def main() -> None:
    """Record the current output."""
    import tempfile

    RECORDED.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for name, body in render_all(Path(folder)).items():
            (RECORDED / name).write_bytes(body)


if __name__ == "__main__":
    main()
