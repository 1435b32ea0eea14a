"""Writes the texts of all clauses and of a node's problems to one page, ``words.txt``.

The diff of the page shows the effect of a change.

``python -m tests.unit.diagnosis.words`` writes it again.
"""

from itertools import product
from pathlib import Path

from userspace_proxy.causes.cause import CauseCode, as_read
from userspace_proxy.causes.endpoints import refuses
from userspace_proxy.causes.nodes import no_node
from userspace_proxy.diagnosis import clauses as said
from userspace_proxy.diagnosis.clauses import ClauseRow
from userspace_proxy.diagnosis.paths import (
    PathView,
    format_counted,
    format_probes,
    format_target,
)
from userspace_proxy.diagnosis.problems import problems_of_node
from userspace_proxy.facts import (
    BridgeFacts,
    ClientAddressFacts,
    FirewallFacts,
    LastStateFacts,
    MemoryFacts,
    PortState,
    ProbesFacts,
    SourceFacts,
    SteeringState,
    SyncFacts,
    TrackingFacts,
    UnservedFacts,
)
from userspace_proxy.facts.node import SocketLbFacts
from userspace_proxy.model import DataPath, Frontend, Protocol, Workload, WorkloadKind
from userspace_proxy.scaling.rights import refusal_reason

from ..status.views import NOW, make_health_check, make_ignored, make_port, make_view, replace

WORDS = Path(__file__).parent / "words.txt"
CAUSE, REFUSES = as_read(CauseCode.NOT_READY, "CAUSE"), refuses("10.0.0.1:80")
WHY, TCP_UDP = said.because(CAUSE), ("TCP", "UDP")
MAILER = Workload(WorkloadKind.DEPLOYMENT, "mailer")
STRANGERS: tuple[tuple[tuple[str, str], ...], ...] = ((), (("app", "web"),))
SILENT = (
    ("TCP", 2, False, False), ("UDP", 2, False, False), ("TCP", 24, False, False),
    ("TCP", 24, False, True), ("TCP", 24, True, False), ("TCP", 24, True, True),
    ("UDP", 24, True, False),
)  # fmt: skip
SAMPLES = [
    said.stated(REFUSES),
    said.stated_in_short(REFUSES),
    said.not_served(PortState.NOT_SERVED, "", CAUSE),
    said.not_served(PortState.PARTLY_SERVED, "node port 30080", CAUSE),
    said.refused(None),
    said.not_looked_up("db.example.com"),
    said.would_wait(60, CAUSE),
    said.holding(1, 0.2, "TCP"),
    said.holding(1234, 200, "UDP"),
    said.not_woken("cannot scale fn/mailer: forbidden"),
    *(
        said.not_woken(refusal_reason(selector, MAILER, {"app": "mailer"}))
        for selector in STRANGERS
    ),
    *(said.at_limit(3, 2.0, protocol, 1, is_pinned=is_pinned, is_silent=is_pinned)
      for protocol, is_pinned in product(TCP_UDP, (False, True))),
    said.at_limit(1, 2.0, "TCP", 1000, is_pinned=False, is_silent=False),
    *(said.nothing_back(*silent) for silent in SILENT[1:]),
    *(row() for row in (said.fail, said.failed_before, said.only_one_fails, said.one_fails,
                        said.none_in_time, said.were_at_limit)),
    said.get_no_answer(),
    said.get_no_answer(True),
    said.got_no_answer(1, 9, "TCP"),
    said.got_no_answer(3, 1234, "TCP"),
    said.got_no_answer(3, 3, "UDP"),
    said.none_answers(1234, is_past=False),
    said.none_answers(2, is_past=True),
    said.some_answer_not(1, 0, 2),
    said.some_answer_not(2, 1, 1234),
    said.some_answer_not(0, 2, 3),
    said.some_answer_not(0, 2, 3, are_all=True),
    said.some_answer_not(1, 2, 3, are_all=True),
    said.others_unused(1, ((1, "not ready"),), has_more=False),
    said.others_unused(1234, ((1234, "not ready"),), has_more=False),
    said.others_unused(3, ((2, "not ready"), (1, "terminating")), has_more=False),
    said.others_unused(9, ((2, "not ready"), (1, "terminating")), has_more=True),
    said.failed_otherwise_before(REFUSES),
    *(row(count, total) for count, total in ((1, 900), (3, 900), (3, 3))
      for row in (said.no_byte_in_time, said.no_datagram_in, said.were_reset)),
    said.no_byte_in_time(3, 900, "UDP"),
    *(said.others_serve(count, always=always) for count in (1, 1234) for always in (True, False)),
    *(said.others_serve(count, is_pinned=True) for count in (1, 2)),
    *(row(count) for count in (1, 1234)
      for row in (said.waited_in_vain, said.closed, said.further_causes, said.more_faults,
                  said.others_untried, said.others_answered)),
    *(row(CAUSE) for row in (said.other_cause, said.dropped, said.dropped_from_outside,
                             said.refused, said.may_fail, said.not_all_served, said.none_served,
                             said.none_admitted, said.partly_served, said.because)),
    said.served_by(1, 0),
    said.served_by(1234, 0, is_now=True),
    said.served_by(2, 1),
    said.ready(1, 0),
    said.ready(2, 1, are_leaving=True),
    said.none_answered_lately(),
    said.none_answered_lately(has_kernel_path=True),
    said.no_client_yet(),
    said.no_client_yet(has_failed=True),
    said.node_port_at(("192.0.2.1:30080",)),
    said.node_port_at(("192.0.2.1:30080", "[2001:db8::1]:30080")),
    *(said.never_answered(*silent) for silent in SILENT),
    said.led_by_kernel(1, 0, "shop/web", "TCP", ""),
    said.led_by_kernel(2, 1, "shop/web", "TCP", "probes"),
    said.led_by_kernel(2, 0, "shop/dns", "UDP", ""),
    said.at_former_endpoints("at"),
    said.at_former_endpoints("from"),
    said.because_of_flaps(3, "shop", "web"),
    said.flaps(1234, "shop", "web"),
    said.flows_failed(3, 1234, 3, 0),
    said.flows_failed(18, 40, 5, 13, WHY),
    said.connections_failed(1234, 5678, (), WHY),
    said.connections_failed(26, 40, ((14, "left before an answer"), (12, "not connected"))),
    *(row(4, 1234, why) for why in (None, WHY)
      for row in (said.clients_left, said.flows_unanswered, said.flows_answered_late,
                  said.saved_late, said.ended_unanswered)),
    said.ended_idle(3, 12),
    said.stalled(1, 1, "TCP", "10.0.0.1:80", 1, has_former=False),
    said.stalled(2, 1234, "UDP", "", 2, has_former=False),
    said.stalled(2, 4, "TCP", "10.0.0.1:80", 1, has_former=True),
    said.stalled(2, 4, "TCP", "", 2, has_former=True),
    said.stalled(2, 4, "TCP", "", 0, has_former=True),
]  # fmt: skip
NODES = [
    {"socket_lb": SocketLbFacts(problem="no cgroup v2 is mounted")},
    {"is_ready": False, "source": SourceFacts("manifests", "web.yaml", is_synced=False)},
    {"is_ready": False, "sync": SyncFacts()},
    {"is_ready": False, "is_draining": True},
    {"is_ready": False},
    {"source": SourceFacts("manifests", ".", is_synced=True, problems=("a.yaml:3: bad",))},
    {"unserved": (UnservedFacts("cannot serve x on 0.0.0.0:1: in use", "stop it"),)},
    {"steering": SteeringState("iptables", problem="Operation not permitted")},
    {"tracking": TrackingFacts(990, 1000, is_full=True)},
    {"tracking": TrackingFacts(900, 1000)},
    {"steering": SteeringState("local", unguarded="there is no nftables here")},
    {"steering": SteeringState("nftables", problem="not permitted", has_drifted=True)},
    {"steering": SteeringState("nftables", repaired_last_minute=3)},
    {"sync": SyncFacts(waiting_since=NOW - 190, problem="No buffer space available")},
    {"sync": SyncFacts(waiting_since=NOW - 2, problem="No buffer space available")},
    {"client_address": ClientAddressFacts(problem="not permitted")},
    {"firewalls": (FirewallFacts("inet evil in", "rule tcp dport 80 reject"),)},
    {"descriptors": 95, "descriptor_limit": 100},
    {"descriptors": 100, "descriptor_limit": 100, "is_accepting": False},
    {"steering": SteeringState("iptables", repaired_last_minute=3)},
    {"steering": SteeringState("local", repaired_last_minute=1_234)},
    {"memory": MemoryFacts(160 << 20, 200 << 20, was_short=True)},
    {
        "memory": MemoryFacts(183 << 20, 200 << 20, is_short=True, was_short=True),
        "is_accepting": False,
    },
    {"worker_problems": ("worker 1 ended by signal 9",)},
    {"health_checks": (make_health_check("shop/web", 31000, 1, "cannot serve it: in use"),)},
    {"client_address": ClientAddressFacts(True, bridges=(BridgeFacts("cni0", "IPv4", "so"),))},
    {"last_state": LastStateFacts("/var/lib/state", served_at=NOW - 180)},
    {"last_state": LastStateFacts("/x", problem="disk full", failing_since=NOW - 60)},
    {"ignored": (make_ignored("shop/web", "80", CAUSE, is_conflict=True),)},
    {"node_is_eligible": False},
    {"no_node": no_node("node-7", ())},
]
"""Facts, each of which is a problem on an otherwise healthy node."""
KERNEL, WEB = DataPath.KERNEL, Frontend("10.96.0.1", 80, Protocol.TCP)
PATHS = [
    (PathView(KERNEL, kernel_connections=0), "TCP"),
    (PathView(KERNEL, kernel_connections=1), "TCP"),
    (PathView(KERNEL, kernel_connections=2), "UDP"),
    (PathView(kernel_connections=5), "TCP"),
    (PathView(kernel_connections=0, socket_connections=0), "TCP"),
    (PathView(), "TCP"),
    (PathView(KERNEL), "TCP"),
    (PathView(KERNEL, kernel_connections=5, socket_connections=1), "TCP"),
    (PathView(KERNEL, socket_connections=2), "TCP"),
    (PathView(kernel_connections=5, socket_connections=1), "TCP"),
    (PathView(KERNEL, socket_connections=2, not_offloaded={WEB: "it says so"}), "TCP"),
]
PROBES = [ProbesFacts(), *(ProbesFacts(count, every, 2_000)
                           for count, every in ((1, 1.5), (2, 0.0), (30_000, 15.0)))]  # fmt: skip
ROWS = [row for row in vars(said).values() if isinstance(row, ClauseRow)]


def lines_of(row):
    """Yield the lines about a row."""
    yield f"{row}"
    for sample in (sample for sample in SAMPLES if sample.row is row):
        yield f"  {sample.text}"
        if sample.planned != sample.text:
            yield f"    planned: {sample.planned}"
        if sample.hint:
            yield f"    hint: {sample.hint}"


def problems():
    """Yield the lines about problems of a node."""
    yield "problems of the node"
    for changes in NODES:
        for problem in problems_of_node(make_view(**changes), NOW):
            yield f"  {problem.level}: {problem.what}"
            if problem.hint:
                yield f"    hint: {problem.hint}"


def paths():
    """Yield the lines about the paths of Service ports."""
    yield "paths"
    for path, protocol in PATHS:
        yield f"  {path.now}, by {format_target(path, WEB)}"
        port = replace(make_port(protocol=protocol), path=path)
        yield f"    {protocol}: {format_counted(port) or 'nothing'}"
    for probes in PROBES:
        yield f"  probes: {format_probes(probes) or 'nothing'}"


def page():
    """Return the whole page."""
    lines = [line for row in dict.fromkeys(ROWS) for line in lines_of(row)]
    return "".join(f"{line}\n" for line in (*lines, *problems(), *paths()))


if __name__ == "__main__":
    WORDS.write_text(page(), encoding="utf-8")
