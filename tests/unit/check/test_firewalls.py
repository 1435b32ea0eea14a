from ipaddress import ip_network

import pytest

from tests.unit.filters.written import nft
from userspace_proxy.check.firewalls import judge_firewalls, look_at_firewalls
from userspace_proxy.check.inputs import Inputs
from userspace_proxy.filters.chains import Chain, ChainTable
from userspace_proxy.model import Frontend, Protocol, SocketAddress, Taken
from userspace_proxy.policy.locality import PodLink
from userspace_proxy.steering.kernel_view import KernelView, read_kernel

FILTER = ChainTable("ip", "filter")
PORTS = (17000, 29999)
HOOKS = ("input", "forward")
OPEN = nft("accept", "ct state established,related")
LET_ANSWERS_IN = "nft insert rule ip filter INPUT ct state established,related accept"


def firewall(*steps, policy="accept", table=FILTER, kind="filter", is_read=True):
    chain = Chain(table, "INPUT", kind, "input", policy=policy, steps=steps, is_read=is_read)
    return {table: {"INPUT": chain}}


def marks(kernel, steering="nftables"):
    return [finding.mark for finding in judge_firewalls(kernel, steering, PORTS)]


@pytest.mark.parametrize("steering", ["nftables", "iptables", "local"])
def test_dropped_endpoint_replies_are_an_error_with_a_rule(steering):
    first = nft("accept", "socket transparent" if steering == "local" else "ct status dnat")
    kernel = KernelView(nft=firewall(first, policy="drop"))
    (found,) = judge_firewalls(kernel, steering, PORTS)
    assert (found.what, found.hint) == (
        "packets of Services may be dropped: its policy is drop, for endpoints' "
        "answers to the proxy",
        LET_ANSWERS_IN,
    )


def test_the_rule_for_local_steering_admits_untranslated_packets():
    kernel = KernelView(nft=firewall(OPEN, nft("accept", "ct status dnat"), policy="drop"))
    (found,) = judge_firewalls(kernel, "local", PORTS)
    assert (found.mark, found.hint) == (
        "error",
        "nft insert rule ip filter INPUT socket transparent 1 accept",
    )
    lets_in = firewall(OPEN, nft("accept", "socket transparent"), policy="drop")
    assert marks(KernelView(nft=lets_in), "local") == ["ok"]
    assert marks(KernelView(nft=lets_in)) == ["ok"]


def test_an_outdated_firewalld_is_reported_with_an_update():
    kernel = KernelView(nft=firewall(OPEN, nft("reject"), table=ChainTable("inet", "firewalld")))
    assert [f.hint for f in judge_firewalls(kernel, "nftables", PORTS)] == [
        "Update firewalld to 0.9 or later, which accepts translated packets"
    ]


WEB = Frontend("10.96.0.10", 80, Protocol.TCP)
POD = PodLink(2, "cali1", (ip_network("10.244.1.1/32"),))
ENDPOINT = SocketAddress("10.244.1.1", 8080)


def lines(kernel, endpoints=(), taken=None):
    found = judge_firewalls(kernel, "nftables", PORTS, endpoints, taken)
    return [f"{one.mark} {one.what}" for one in found]


def forward(policy):
    chain = Chain(FILTER, "FORWARD", "filter", "forward", policy=policy)
    return {FILTER: {"FORWARD": chain}}


STEERED = "ok no chain drops packets that are steered to the proxy"


def test_forward_chains_are_checked_only_for_the_kernel_path():
    closed = KernelView(nft=forward("drop"), clients=(POD,))
    assert lines(closed) == [STEERED]
    assert lines(closed, [ENDPOINT]) == [
        "error packets that the kernel path would forward to endpoints are dropped: its policy is "
        "drop",
        STEERED,
    ]
    assert lines(KernelView(nft=forward("accept")), [ENDPOINT]) == [
        STEERED,
        "ok no chain drops packets that the kernel path forwards",
    ]


def test_a_chain_dropping_a_frontends_packets_is_reported():
    taken = {WEB: Taken("nftables chain ip raw pre drops them", "", "ip raw pre")}
    assert lines(KernelView(), taken=taken) == [
        "error 10.96.0.10:80/TCP: nftables chain ip raw pre drops them"
    ]
    doubt = {WEB: Taken("it may drop", "", "ip raw pre", is_certain=False)}
    assert lines(KernelView(), taken=doubt) == ["warning 10.96.0.10:80/TCP: it may drop"]
    assert marks(KernelView(nft=firewall(nft("drop", "numgen/hash")))) == ["warning"]


@pytest.mark.parametrize(
    ("kernel", "expected"),
    [
        pytest.param(KernelView(unread=("permission denied",)), [], id="tables"),
        pytest.param(
            KernelView(nft=firewall(is_read=False)),
            "chain ip filter INPUT, as `nft list chain ip filter INPUT` shows",
            id="a-chain",
        ),
        pytest.param(
            KernelView(nft=firewall(nft("drop", "…"), nft("accept"))),
            "chain ip filter INPUT, rule … drop, as `nft list chain ip filter INPUT` shows",
            id="a-condition",
        ),
    ],
)
def test_rules_that_cannot_be_read_or_interpreted_are_listed_as_not_followed(kernel, expected):
    known = "ok no chain certainly drops packets that are steered to the proxy; not followed"
    assert lines(kernel) == ([f"{known}: {expected}"] if expected else [])


def test_packets_to_known_frontends_and_endpoints_are_followed_through_chains(node):
    node.run(
        "nft 'table ip raw { chain pre { type filter hook prerouting priority -300; "
        "ip daddr 10.96.0.10 drop; }; chain f { type filter hook forward priority 0; "
        "policy drop; }; }'"
    )
    inputs = Inputs(frontends=(WEB,), endpoints=(ENDPOINT,))
    for path, chains in (("kernel", ["pre", "f"]), ("auto", ["pre", "f"]), ("userspace", ["pre"])):
        found = look_at_firewalls(read_kernel(*HOOKS), "nftables", PORTS, inputs, path)
        assert [one.where for one in found] == [f"chain ip raw {name}" for name in chains]
    found = look_at_firewalls(read_kernel(*HOOKS), "nftables", PORTS, Inputs(), "kernel")
    assert [one.where for one in found] == ["chain ip raw f", ""]
    node.run("ip link set lo up; ip addr add 10.244.1.1/32 dev lo")
    found = look_at_firewalls(read_kernel(*HOOKS), "nftables", PORTS, inputs, "kernel")
    assert [one.where for one in found] == ["chain ip raw pre"], "an address of the node"
