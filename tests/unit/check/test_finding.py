import ast
import re
from pathlib import Path

import pytest

from tests.unit.check.test_inputs import look
from userspace_proxy import check
from userspace_proxy.check.api_server import judge_server, look_at_wake
from userspace_proxy.check.client_address import judge_client_address
from userspace_proxy.check.finding import Mark, error, ok, warning, worst
from userspace_proxy.check.firewalls import judge_firewalls
from userspace_proxy.check.inputs import judge_settings
from userspace_proxy.check.leftovers import judge_kube_proxy
from userspace_proxy.check.network import judge_interfaces, judge_routes, judge_sysctls
from userspace_proxy.check.offers import Offers, judge_offers
from userspace_proxy.check.ports import judge_descriptors, judge_ranges
from userspace_proxy.config import Settings
from userspace_proxy.errors import ConfigError
from userspace_proxy.model import SocketAddress
from userspace_proxy.steering.kernel_view import KernelView


def test_a_finding_is_printed_with_its_location_and_remedy():
    assert str(error("firewall", "it drops", "chain ip filter INPUT", "nft insert …")) == (
        "error    firewall: it drops [chain ip filter INPUT] -> nft insert …"
    )
    assert str(ok("config", "understood")) == "ok       config: understood"


@pytest.mark.parametrize(
    ("findings", "mark"),
    [
        pytest.param([], Mark.OK, id="nothing"),
        pytest.param([ok("a", "b"), warning("a", "b")], Mark.WARNING, id="warning"),
        pytest.param([error("a", "b"), warning("a", "b")], Mark.ERROR, id="error"),
    ],
)
def test_the_worst_finding_determines_the_result(findings, mark):
    assert worst(findings) is mark


DENIED = "permission denied"
UNREAD = KernelView(unread=(DENIED,))
PORTS = (17000, 29999)


def offers(taken="nftables", wanted="nftables", **found):
    """Return the findings of a process without the privileges to try steering modes."""
    lacks = dict.fromkeys(("nftables", "iptables", "local"), DENIED)
    known = Offers(lacks=lacks, **found)
    return judge_offers(known, wanted, taken, own_namespace=False)


# Maps the sentence of each "ok" finding, as in the source, to the question that it answers and a
# check that can't answer it; or to None if it only repeats a setting or names a missing part.
QUESTIONS = {
    "{kinds} can be read{known}": (
        "sources.kubernetes.permissions.ask_server",
        lambda: judge_server("https://192.0.2.1", ["HTTP status 404"], ""),
    ),
    "Leases of the namespace userspace-proxy can be read": (
        "sources.kubernetes.leases: a list of them",
        lambda: look_at_wake(Settings(allow_wake=True, kubeconfig="/gone"), "node-1"),
    ),
    "endpoints on this node see client addresses; a pod that reaches itself through a Service "
    "sees this node's address": (
        "check.client_address.find_obstacle: links, and rules that are tried",
        lambda: judge_client_address(DENIED),
    ),
    "no chain drops {packets}": (
        "filters.following: with each packet, in all chains that were read",
        lambda: judge_firewalls(UNREAD, "nftables", PORTS, [SocketAddress("10.244.1.1", 80)]),
    ),
    "no chain certainly drops {packets}; not followed: {first}{more}": (
        "the same; what it doesn't answer is named",
        lambda: judge_firewalls(UNREAD, "nftables", PORTS, [SocketAddress("10.244.1.1", 80)]),
    ),
    "flags and file are valid": (
        "config: the reader of both",
        lambda: judge_settings([], "/etc/proxy.yaml", ConfigError(DENIED)),
    ),
    "flags are valid": (
        "config: the reader of flags",
        lambda: judge_settings([], "", ConfigError(DENIED)),
    ),
    "{plural(len(snapshot.services), 'Service')} read": (
        "sources.manifests.load_state",
        lambda: look("/gone.yaml")[0],
    ),
    "no listener by design for {names}{more}": ("plan.Planner", None),
    "nothing left behind": (
        "filters.kube_proxy: all chains, and names of interfaces",
        lambda: judge_kube_proxy(UNREAD, "nftables", is_beside=False),
    ),
    "its rules serve the Services that this proxy doesn't": (
        "the same",
        lambda: judge_kube_proxy(UNREAD, "nftables", is_beside=True),
    ),
    "{names}{more} without an IPv4 address: traffic that arrives there is sent to an address of "
    "this node ({view.addresses[0]}) instead of the interface's": (
        "kernel.interfaces.list_interfaces",
        lambda: judge_interfaces(None, "nftables", ["10.96.0.0/12"]),
    ),
    "programs on this node can dial {cidr}": (
        "kernel.routes.route_refusal",
        lambda: judge_routes(["10.96.0.0/12"], {}),
    ),
    "net.ipv4.ip_forward is 0: Services work without it, except on the kernel path; direct IPv4 "
    "connections between pods don't": ("that sysctl", lambda: judge_sysctls({})),
    "the node's own connections don't use the proxy ports {_words(proxy_ports)}": (
        "net.ipv4.ip_local_port_range",
        lambda: judge_ranges({}, PORTS, uses_client_ports=True),
    ),
    "{limit:,} open files": ("getrlimit()", None),
    "', '.join([*counts, f'{limit:,} open files'])": (
        "the plan of manifests",
        lambda: [one for one in judge_descriptors(9, None, 1, PORTS) if "Service" in one.what],
    ),
    "none: clients dial loopback addresses, no privilege is needed": ("--steering", None),
    "NET_ADMIN and NET_RAW are present": ("capabilities of this process", offers),
    "user namespaces are allowed: demo and sandbox work without root": (
        "kernel.privileges.read_sysctls",
        offers,
    ),
    "the kernel supports everything that the proxy's rules need": ("kernel.offers", offers),
    "python-iptables is available, and the kernel has legacy tables": (
        "steering.selection.iptables_lacks",
        offers,
    ),
    "can't be used: {offers.lack('nftables')}": ("kernel.offers", None),
    "can't be used: {offers.lack('iptables')}": ("steering.selection.iptables_lacks", None),
    "{taken}, as set by --steering": ("kernel.offers", offers),
    "auto chooses {taken}: {why}": ("kernel.offers", lambda: offers(wanted="auto")),
    "lack.words": ("kernel.offers", None),
    "connect() of this node's programs can be translated": ("steering.socket_lb.hook_rights", None),
    "its modules are compiled": ("dataplane.calls.IS_COMPILED", None),
}


def sentences(node):
    """Yield the possible texts of an argument, with placeholders in braces."""
    match node:
        case ast.IfExp():
            yield from (*sentences(node.body), *sentences(node.orelse))
        case ast.JoinedStr() | ast.Constant():
            yield ast.literal_eval(re.sub(r"^f", "", ast.unparse(node)))
        case ast.Name(id="without"):
            yield "none: clients dial loopback addresses, no privilege is needed"
        case _:
            yield ast.unparse(node)


def calls_of_ok():
    for path in Path(check.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                yield from sentences(node.args[1]) if node.func.id == "ok" else ()


def test_each_ok_finding_is_listed_with_the_question_that_it_answers():
    assert sorted(calls_of_ok()) == sorted(QUESTIONS)


@pytest.mark.parametrize("sentence", [one for one, (_, ask) in QUESTIONS.items() if ask])
def test_a_check_that_cannot_answer_its_question_does_not_report_ok(sentence):
    pattern = re.sub(r"\\\{.*?\\\}", ".*", re.escape(sentence))
    _, ask = QUESTIONS[sentence]
    said = [one.what for one in ask() if one.mark is Mark.OK]
    assert [what for what in said if re.fullmatch(pattern, what)] == []
