"""Writes the texts of all causes to one page, on which they can be proof-read.

    samples of each row, several if its text depends on parameters ──▶ words.txt

A test compares the page. To record intended changes: ``python -m tests.unit.causes.words``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from userspace_proxy.causes import endpoints, names, nodes, notes, services, slices
from userspace_proxy.causes.cause import Cause, When
from userspace_proxy.causes.say import Form, object_of, remedy, say
from userspace_proxy.model import Failure, Protocol, ServiceKey, SliceKey
from userspace_proxy.model.annotations import ANNOTATIONS, read_hold
from userspace_proxy.model.endpoint_names import read_host
from userspace_proxy.model.source_ranges import parse_range
from userspace_proxy.model.syntax import (
    check_common_address,
    check_family,
    check_label,
    check_subdomain,
    check_target_port,
)
from userspace_proxy.plan.kernel_room import TOO_EXACT
from userspace_proxy.steering import Steering
from userspace_proxy_kubectl.nodes import agent_causes

from ..refusals import why

WORDS = Path(__file__).parent / "words.txt"

_POD, _POD_V6, _CLIENT = "10.244.1.8:8080", "[fd00::8]:8080", "203.0.113.7"
_OF_CLIENTS = ("10.0.0.0/16", "10.1.0.0/16", "10.2.0.0/16", "10.3.0.0/16", "10.4.0.0/16")
_KEY = ServiceKey("shop", "cart")
_CART, _CART_SLICE, HOST = "shop/cart", "EndpointSlice shop/cart-1", "db.example.com"
_SELECTOR = "app=web,tier=front"
_PODS = ("pods", "-n", "shop", "-l", _SELECTOR)
_LINE = f"m/cart.yaml:13: {why(check_family, 'fd00::1', 'IPv4', 'endpoints[0].addresses[0]')}"
_HOLD, _WEIGHT = "userspace-proxy.io/hold", "userspace-proxy.io/weight"
_WRONG = {
    "preserve-client-address": "keep", "max-connections": "0", "hold": "2h", "slow-start": "2h",
    "wake": "web", "idle-after": "25h", "on-endpoint-removal": "60", "proxy-protocol": "latest",
    "endpoints": "db",
}  # fmt: skip
"""Invalid values of annotations."""
_LOCAL = "internalTrafficPolicy"
_REASONS = ("1 not ready", "2 not on this node")
_DRAINED = "drained (weight 0)"
_REFUSED = "refused: a loopback address"
_NAMES = "userspace-proxy.io/endpoints"
_MIRRORED = "cart-1:0:IPv4"

SAMPLES = (
    endpoints.refuses(_POD),
    endpoints.refuses(_POD_V6),
    endpoints.refuses(_POD, was_open=True),
    endpoints.silent(_POD),
    endpoints.silent(_POD_V6),
    endpoints.dropped_here(_POD, "nftables chain ip filter out drops packets to it"),
    endpoints.silent_to_some(_POD),
    endpoints.node_silent("node-7"),
    endpoints.unreachable(_POD),
    endpoints.prohibited(_POD_V6),
    endpoints.no_route(_POD),
    endpoints.route_prohibits(_POD),
    endpoints.route_prohibits(_POD_V6),
    endpoints.route_unreachable(_POD),
    endpoints.no_host(_POD, "eth0"),
    endpoints.no_host(_POD),
    endpoints.no_gateway(_POD, "172.30.0.22", "eth0"),
    endpoints.fails(_POD, Failure.BLACKHOLE, "Invalid argument"),
    endpoints.fails(_POD, Failure.NOT_PERMITTED, "Operation not permitted"),
    endpoints.fails(_POD, Failure.NO_ACCESS, "Permission denied"),
    endpoints.fails(_POD, Failure.NO_PROTOCOL, "Protocol not available"),
    endpoints.fails(_POD, Failure.OTHER, "Message too long"),
    endpoints.resets(_POD),
    endpoints.sends_nothing(_POD),
    endpoints.no_datagram(_POD),
    endpoints.owes_answers(_POD),
    endpoints.answers_late(_POD, 2.5),
    endpoints.answers_at_end(_POD, 2.5),
    endpoints.answers_flows_late(_POD),
    endpoints.denies(_POD, _CLIENT),
    endpoints.denies_on(_POD, _CLIENT, "node-1"),
    endpoints.excludes(_POD, _CLIENT),
    endpoints.cuts_off(_POD),
    endpoints.not_to_client(_CLIENT),
    endpoints.not_to_endpoint(_POD),
    endpoints.not_to_endpoint(_POD_V6),
    endpoints.not_all_to_endpoint(_POD),
    endpoints.not_from_endpoint(_POD),
    endpoints.fault_on_purpose(_POD, ("refuse", "silent")),
    endpoints.out_of_ports(),
    endpoints.out_of_client_ports(),
    slices.no_slice_of_family(_CART, "IPv6", "IPv4"),
    slices.not_mirrored(_CART, "cart", "label skip"),
    slices.no_slice(_CART, "cart", _SELECTOR),
    slices.no_slice_nor_selector(_CART, "cart"),
    slices.slice_headless(_CART, "shop/cart-1", is_managed=True),
    slices.slice_headless(_CART, "shop/cart-1", is_managed=False),
    slices.slice_rejected(_CART_SLICE, _LINE),
    slices.unnamed_slice_rejected(_CART_SLICE, _LINE, "cart"),
    slices.selects_no_pod(_CART, 1, _SELECTOR, _PODS),
    slices.selects_no_pod(_CART, 2, _SELECTOR, _PODS),
    slices.slice_empty(_CART, 1),
    slices.slice_empty(_CART, 2),
    slices.slice_elsewhere(_KEY, SliceKey("web", "cart-1")),
    slices.slice_elsewhere(_KEY, SliceKey("web", _MIRRORED)),
    slices.slice_orphaned(_KEY, SliceKey("shop", "cart-1"), "carts"),
    slices.slice_orphaned(_KEY, SliceKey("shop", _MIRRORED), "cart-1"),
    slices.slice_unlabelled(_KEY, SliceKey("shop", "cart-1")),
    slices.other_protocol("dns", "UDP", ("TCP",), has_selector=False),
    slices.other_protocol("", "TCP", ("UDP",), has_selector=True),
    slices.other_port_names("http", ("", "web")),
    slices.other_port_names("", ("web",)),
    slices.no_port("http", has_selector=True, target="web"),
    slices.no_port("", has_selector=False),
    slices.some_lack_port("http", 2, 3, "web"),
    slices.some_lack_port("", 1, 3_000),
    slices.port_unnumbered(_CART, "http", "shop/cart-1"),
    slices.port_unnumbered(_CART, "", "shop/cart-1"),
    slices.none_ready(1, 0, _PODS, "node-2"),
    slices.none_ready(3_000, 0, (), "node-2"),
    slices.none_ready(1, 1, _PODS),
    slices.none_ready(3, 1, _PODS),
    slices.none_ready(3, 2, _PODS),
    slices.none_ready(3, 3, _PODS),
    slices.none_ready_on("node-2"),
    slices.about_to_vanish("shop", 1),
    slices.about_to_vanish("shop", 2),
    slices.none_local(1, 0, "node-2", _LOCAL),
    slices.none_local(1, 1, "", _LOCAL),
    slices.none_local(2_000, 0, "node-2", "externalTrafficPolicy"),
    slices.none_local(2, 1, "node-2", _LOCAL),
    slices.none_local(2, 2, "", _LOCAL),
    slices.none_local_nor_usable(3, _REASONS, _LOCAL),
    slices.none_undrained(1, (_DRAINED,), _CART),
    slices.none_undrained(2, (f"1 {_DRAINED}", "1 not ready"), _CART),
    slices.none_allowed_undrained(2, (f"1 {_DRAINED}", f"1 {_REFUSED}"), _CART),
    slices.none_allowed(1, (_REFUSED,)),
    slices.none_allowed(2, ("1 not ready", f"1 {_REFUSED}")),
    slices.none_usable(6_000, tuple(f"1 x{zone}" for zone in "abcdef")),
    slices.too_many_at_all_ports(_CART, 50_000),
    slices.too_many_in_namespace("shop", 500_000),
    slices.too_many_endpoints(10_000),
    services.lacks_label("service.kubernetes.io/service-proxy-name=mesh"),
    services.of_other_proxy("mesh"),
    services.has_headless_label(),
    services.is_external_name(),
    services.is_external_name("192.0.2.7"),
    services.is_headless(),
    services.is_headless(("8080 (not 80)", "http (not 8443)")),
    services.no_cluster_ip(),
    services.unsupported_protocol("SCTP"),
    services.balanced_elsewhere("203.0.113.9"),
    services.held_by("10.96.0.7:80/TCP", "shop/web"),
    services.external_ip_of("203.0.113.9", "shop/web"),
    services.lost_to("10.96.0.7:80/TCP", "cluster IP", "10.96.0.7", "shop/web"),
    services.lost_to("0.0.0.0:30080/TCP", "node port", "30080", "shop/web"),
    services.lost_as_address("203.0.113.9", "external IP", "203.0.113.9", "shop/web"),
    services.own_address("10.96.0.9"),
    services.external_ip_off("203.0.113.9", "external IPs are off"),
    notes.of_other_family("198.51.100.31", "IPv4", "IPv6"),
    services.external_ip_off("203.0.113.9", "it is an address of this node", is_allowed=True),
    services.too_many_external_ips("203.0.113.9", 100),
    services.too_many_frontends(_CART, 10_000, 1),
    services.too_many_frontends(_CART, 10_000, 1_200),
    services.too_many_frontends_in_namespace("shop", 40_000),
    services.not_listening("cannot listen on 10.96.0.7:80", "Stop what has it"),
    services.not_listening("a chain takes its clients", "Delete the chain", "ip evil in"),
    notes.annotation_wrong(_HOLD, why(read_hold, "60"), "no connection waits"),
    notes.annotation_wrong(_HOLD, why(read_hold, "60s,0"), "no connection waits"),
    *(
        notes.annotation_wrong(one.key, why(one.read, _WRONG[one.name]), one.otherwise)
        for one in ANNOTATIONS
        if one.name in _WRONG
    ),
    notes.annotation_wrong(_WEIGHT, "'x' is not in 0–65535", "it has no effect").replace(
        within=_CART_SLICE
    ),
    notes.annotation_unknown(f"{_HOLD}s", _HOLD, (_HOLD, _WEIGHT)),
    notes.annotation_unknown("userspace-proxy.io/x", "", (_HOLD, _WEIGHT)),
    notes.annotation_misplaced(_WEIGHT, "EndpointSlices"),
    notes.slow_start_unused(),
    notes.wake_without_hold("nothing is woken"),
    notes.wake_without_selector("deployment/web"),
    notes.idle_without_wake("nothing is scaled to zero"),
    notes.header_without_tcp(),
    notes.scope_without_affinity(),
    notes.path_not_allowed("auto"),
    notes.kernel_path_unused("hold needs the proxy"),
    notes.weights_coarse(TOO_EXACT),
    notes.range_without_port("rtp=10000-20000", ("sip", "http")),
    notes.range_without_port("rtp=10000-20000", ()),
    notes.range_without_number("sip=10000-20000", 5060),
    notes.range_overlaps("sip=5000-6000", "rtp=1000-20000"),
    notes.range_not_allowed("rtp=10000-20000", "203.0.113.9", "cluster-ip"),
    notes.all_at_external("game=all", "203.0.113.9"),
    notes.range_at_node("rtp=10000-20000", "203.0.113.9", "this node"),
    notes.range_without_node_port("rtp=10000-20000", 30_080),
    notes.range_without_proxy("rtp=10000-20000", "hold, slow-start"),
    notes.range_not_possible("rtp=10000-20000", Steering.no_kernel_path[Protocol.TCP]),
    notes.no_balancer_address(),
    notes.too_many_balanced(1_010, 100),
    notes.ranges_in_annotation(),
    notes.range_wrong(why(parse_range, "10.0.0.0/99")),
    notes.too_many_ranges(1_001, 1_000),
    notes.no_range_of_family("IPv6"),
    notes.too_many_hints(1_000),
    notes.too_many_pods(20_000),
    notes.no_pod(why(check_subdomain, ".", "endpoints[1].targetRef.name"), "192.0.2.2"),
    notes.address_wrong("endpoints[2].addresses", why(read_host, "")),
    notes.address_wrong("endpoints[2].addresses", why(read_host, "192.0.2.1")),
    notes.names_beside_selector(_NAMES),
    notes.name_without_port(_NAMES, f"{HOST}:5432", ""),
    notes.name_without_port(_NAMES, f"{HOST}:5432", "'sq'"),
    notes.names_bug("OSError(12)"),
    notes.not_to_mirror(_CART, "label skip"),
    notes.left_out_beside(_CART, "10.244.1.7"),
    notes.node_port_named("spec.healthCheckNodePort", "30202/TCP", "shop/web"),
    notes.no_node_port_left("spec.ports[0].nodePort", 30_000, 32_767),
    notes.no_node_address(30_080, "IPv4", ("192.0.2.0/24", "primary")),
    services.more_notes(),
    services.rejected("Service shop/cart", _LINE),
    services.rejected("Service shop/cart", why(check_label, "Cart", "metadata.name")),
    services.rejected(
        "Service shop/cart", why(check_target_port, "80", "spec.ports[0].targetPort")
    ),
    services.rejected("Service shop/cart", why(check_common_address, "::1", "spec.externalIPs[0]")),
    services.of_object(_LINE),
    services.object_kept("m/cart.yaml:13"),
    services.health_check_fails("cannot serve the health check"),
    services.forwarding_dropped("ip filter FORWARD", "its policy is drop", "Let it accept them"),
    services.forwarding_unanswered(),
    services.dials_other_port(("10.96.7.1:81/TCP",), ("10.96.7.1:80/TCP", "10.96.7.1:443/TCP")),
    services.source_denied(()),
    services.source_denied(_OF_CLIENTS),
    services.source_denied((*_OF_CLIENTS, "10.5.0.0/16")),
    services.source_was_denied(),
    services.none_was_local(),
    services.no_proxy_header(_CLIENT),
    services.hop_limit_reached(_CLIENT),
    names.no_name_for_port("rest"),
    names.name_not_allowed(HOST),
    names.name_not_allowed("localhost"),
    names.networks_unknown(HOST),
    names.nodes_unknown(HOST),
    names.too_many_names(HOST, 16, 64, 100, 1_000),
    names.not_looked_up_yet(HOST),
    names.name_unresolved(HOST, "DNS has no such name"),
    names.name_stale(HOST, "no server answers"),
    names.name_leads_astray(HOST, "127.0.0.1, which is a loopback address"),
    names.no_address_of_family(HOST, "IPv6"),
    agent_causes.no_agent("kube-system"),
    agent_causes.agent_excluded("kube-system"),
    agent_causes.agent_not_running("kube-system", "it is not scheduled", "agent-x"),
    agent_causes.agent_ended(
        "kube-system", "container userspace-proxy waits: CrashLoopBackOff", "agent-x"
    ),
    agent_causes.agent_restarts("ended with status 1", "kube-system", out_of_memory=True),
    agent_causes.agent_restarts("ended with status 1", "kube-system", is_repeated=True),
    agent_causes.agent_restarts("ended with status 0", "kube-system", is_graceful=True),
    agent_causes.no_answer("kube-system", 5.0),
    agent_causes.no_answer("kube-system", 5.0, "Kubelet stopped posting node status"),
    agent_causes.not_asked(5.0),
    agent_causes.gone_silent("kube-system", 10.0),
    agent_causes.no_api_server("the server at https://x is lost", as_of="12:14:05"),
    agent_causes.forward_failed(
        "kube-system", "pod kube-system/userspace-proxy-x, port 10249: refused"
    ),
    agent_causes.answer_too_large("kube-system", 32),
    agent_causes.answer_unreadable("kube-system", "HTTP status 404: Not Found"),
    nodes.source_fails("cannot watch Services: Connection refused"),
    nodes.behind(("shop/web",), 1),
    nodes.behind(("shop/a", "shop/b", "shop/c"), 14),
    nodes.several_agents(("kube-system/a", "kube-system/b")),
    nodes.other_version("0.1.0", "0.2.0 (commit 0123456789ab)"),
    nodes.other_version("0.1.0", ""),
    nodes.other_settings(("steering=iptables (default)", "v=4 (2)")),
    nodes.beside_kube_proxy(("nftables table ip kube-proxy",)),
    nodes.no_node("node-7", ()),
    nodes.no_node("node-7", ("node-7.example", "node-77.example")),
    nodes.clock_off(3, is_ahead=True),
    nodes.clock_off(3_600, is_ahead=False, are_several=True),
    nodes.own_clock_off(12, is_ahead=True),
    nodes.own_clock_off(12, is_ahead=False),
    nodes.path_fails(34, ("node-3",), 1, "10.244.3.9"),
    nodes.path_fails(3, (), 0, "fd00::9"),
    nodes.path_fails(3, ("node-3",), 1, "10.244.3.9", is_own=True),
    *(nodes.cut_off("node-3", is_lossy=one) for one in (False, True)),
    nodes.not_answered(4, "node-3", "10.244.3.9"),
    nodes.not_answered(4, "node-3", "10.244.3.9", accepts=False),
)
"""Sample causes of all rows, in the order of the page."""


def texts_of(cause: Cause) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """Yield a label, a text of the cause, and texts from which it must differ.

    The page omits a text that is empty or equals one from which it must differ.
    """
    now, usual = say(cause), remedy(cause)
    outside, at_times = cause.replace(host=HOST), cause.replace(answers_others=True)
    yield "now", now, ()
    yield "past", say(cause.replace(when=When.LAST_MINUTE)), (now,)
    yield "short", say(cause, Form.SHORT), (now,)
    yield "about", object_of(cause), ()
    yield "one incident", ", ".join(map(str, cause.shared or ())), ()
    yield "remedy", usual, ()
    yield "outside", remedy(outside), (usual,)
    yield "to some nodes", remedy(cause.replace(answers_nodes=True)), (usual,)
    own = remedy(cause.replace(answers_nodes=True, answers_own=True))
    yield "to its own node", own, (usual, remedy(cause.replace(answers_nodes=True)))
    yield "at times", remedy(at_times), (usual,)
    both = remedy(outside.replace(answers_others=True))
    yield "at times outside", both, (remedy(outside), remedy(at_times))


def entry_of(cause: Cause) -> str:
    """Return a cause's entry on the page."""
    lines = [f"{cause.row} ({cause.code})"]
    for label, text, others in texts_of(cause):
        if text and text not in others:
            lines.append(f"  {label}: {text}")
    return "\n".join(lines)


def page() -> str:
    """Return the whole page."""
    return "\n\n".join(map(entry_of, SAMPLES)) + "\n"


def changed(module: ModuleType) -> list[str]:
    """Return the texts of a module's causes that differ from the recorded page."""
    recorded = WORDS.read_text().rstrip("\n").split("\n\n")
    entries = (entry_of(one) for one in SAMPLES if one.row.words.__module__ == module.__name__)
    return [entry for entry in entries if entry not in recorded]


if __name__ == "__main__":
    WORDS.write_text(page())
