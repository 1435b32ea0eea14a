"""Tests that the steering keeps its table correct; tests/node has the contract and real traffic."""

from __future__ import annotations

import contextlib
import errno
import gc
import itertools
import socket
import warnings
from dataclasses import replace

import pytest

from tests.descriptors import descriptors_left, open_descriptors
from userspace_proxy.errors import SteeringError
from userspace_proxy.kernel import conntrack
from userspace_proxy.kernel.conntrack import StaleEntries
from userspace_proxy.kernel.netlink import Requests
from userspace_proxy.kernel.nf_tables import INET, Ruleset, TableWriter
from userspace_proxy.kernel.nf_tables import expressions as x
from userspace_proxy.kernel.nf_tables.expressions import expression
from userspace_proxy.kernel.nf_tables.kept_table import Repair
from userspace_proxy.kernel.nf_tables.ruleset import NftablesError
from userspace_proxy.kernel.offers import LACKS_NOTHING, KernelOffers
from userspace_proxy.kernel.socket_options import IP_TRANSPARENT
from userspace_proxy.kernel.source_filter import admit_only
from userspace_proxy.model import Balance, Frontend, IPFamily, Protocol, SocketAddress
from userspace_proxy.steering import (
    REFUSE,
    EndpointChoice,
    KernelTarget,
    SteeringFacts,
)
from userspace_proxy.steering.nftables import (
    NftablesSteering,
    find_no_kernel_path,
    missing,
    rules,
)
from userspace_proxy.steering.nftables import steering as module
from userspace_proxy.steering.nftables.choosers import pack_number
from userspace_proxy.steering.nftables.kernel_path import KernelPath
from userspace_proxy.steering.nftables.kernel_rules import pack_endpoint
from userspace_proxy.steering.nftables.rules import all_elements
from userspace_proxy.steering.nftables.steering import NftablesProgrammer

WEB = Frontend("10.96.7.1", 80, Protocol.TCP)
CART = Frontend("10.96.7.2", 80, Protocol.TCP)
DNS = Frontend("10.96.0.10", 53, Protocol.UDP)
DNS_6 = Frontend("fd00:96::a", 53, Protocol.UDP)
FACTS = SteeringFacts(refuse_port=35999)
MAP = "inet userspace-proxy frontends4"


def stale_after_restoring(programmer):
    programmer._restore({}, {})
    return programmer._stale


def count_flows(node, protocol=socket.IPPROTO_UDP, *, version=4):
    """Return how many conntrack entries of a protocol the node has."""
    with node:
        return conntrack.count_by_endpoint(version, protocol).entries.total()


def to_endpoint(ip, port=8080):
    """Return a target with one endpoint on the kernel path."""
    return KernelTarget(36002, (EndpointChoice((SocketAddress(ip, port),)),))


@contextlib.asynccontextmanager
async def succeeding(facts=FACTS):
    """Yield the started successor of a closed steering."""
    successor = NftablesSteering(facts)
    await successor.start()
    try:
        yield successor
    finally:
        await successor.close()


async def assert_a_repair_ends_the_flow(node, steering):
    assert count_flows(node) == 1
    await steering.repair()
    assert count_flows(node) == 0


def restore_without_noting(programmer, frontend, choice):
    """Add elements that send a frontend to endpoints, as another program would."""
    path = programmer._kernel_path
    path.change({frontend: KernelTarget(36002, (choice,))})
    path._rules.accept(path._rules.difference({frontend: None}))
    path._table.forget()


@pytest.fixture
def begin(node, dial):
    """Return a function that starts UDP flows, or sends SYNs that aren't answered."""

    def begin(*frontends):
        for frontend in frontends:
            if frontend.protocol is Protocol.UDP:
                dial(frontend)
                continue
            with socket.socket() as client:
                client.setblocking(False)
                client.connect_ex((frontend.ip, frontend.port))

    return begin


@contextlib.contextmanager
def dropping(port):
    """Listen on a port that drops SYNs, as if its accept queue were full."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_IP, IP_TRANSPARENT, 1)
        admit_only(listener, ())
        listener.bind(("0.0.0.0", port))
        listener.listen()
        yield


@pytest.fixture
async def steering(node):
    steering = NftablesSteering(FACTS)
    await steering.start()
    yield steering
    await steering.clean_up()
    await steering.close()


def lead_as_outside(node, frontend, port):
    """Translate a frontend to the node's address, as REDIRECT does for outside clients."""
    protocol = str(frontend.protocol).lower()
    node.run(rf"""
        nft add table ip client
        nft add chain ip client output {{ type nat hook output priority -150\; }}
        nft add rule ip client output {protocol} dport {frontend.port} dnat to 10.1.0.1:{port}""")


def test_running_out_of_descriptors_leaks_no_descriptor(node):
    # Otherwise the garbage of earlier tests might be collected during this test.
    gc.collect()
    before = open_descriptors()
    with warnings.catch_warnings(record=True) as unclosed:
        warnings.simplefilter("always")
        for count in itertools.count():
            with descriptors_left(count), contextlib.suppress(SteeringError):
                NftablesProgrammer(FACTS).close()
                break
            gc.collect()
        gc.collect()
    assert (count, unclosed, open_descriptors()) == (7, [], before)


def test_nftables_steering_requires_redirect_but_not_numgen():
    assert missing(LACKS_NOTHING) == ""
    assert missing(KernelOffers({"redirect": errno.ENOENT})) == (
        "this kernel lacks redirect (modprobe nft_redir)"
    )
    assert missing(KernelOffers({"numgen": errno.ENOENT})) == ""


@pytest.mark.parametrize(
    ("lack", "without"),
    [
        pytest.param(
            "numgen",
            dict.fromkeys(IPFamily, "this kernel lacks numgen (modprobe nft_numgen)"),
            id="choice",
        ),
        pytest.param(
            "hash",
            {
                IPFamily.IPV6: "net.ipv6.conf.all.forwarding is 0",
                Balance.SOURCE_HASH: "this kernel lacks hash (modprobe nft_hash)",
            },
            id="hash-only",
        ),
    ],
)
async def test_a_missing_kernel_feature_disables_the_kernel_path_where_needed(node, lack, without):
    node.run("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=0")
    kernel = KernelOffers({lack: errno.ENOENT})
    assert find_no_kernel_path(kernel) == without
    steering = NftablesSteering(FACTS, kernel)
    await steering.start()
    assert steering.no_kernel_path == without
    await steering.close()


async def test_frontends_refused_by_an_earlier_run_are_rendered_as_refused(node, steering):
    await steering.apply({WEB: 36001, DNS: REFUSE})
    shown = await steering.render()
    assert "-> refuse" in shown
    await steering.close()
    async with succeeding(SteeringFacts(refuse_port=35888)) as successor:
        assert await successor.render() == shown


async def test_a_port_is_guarded_until_the_second_repair_after_its_last_frontend_is_removed(
    node, steering
):
    def is_guarded():
        return "tcp . 36001" in node.run("nft list set inet userspace-proxy guarded")

    cart = Frontend("10.96.7.2", 80, Protocol.TCP)
    await steering.apply({WEB: 36001, cart: 36001})
    await steering.change({}, [WEB])
    assert [await steering.repair(), await steering.repair(), is_guarded()] == [0, 0, True]
    await steering.change({cart: 36002}, ())
    assert [is_guarded(), await steering.repair(), is_guarded()] == [True, 0, True]
    assert [await steering.repair(), is_guarded()] == [0, False]
    await steering.change({WEB: 36001}, ())
    assert is_guarded()


async def test_the_expiry_of_a_guard_does_not_count_as_drift(node, steering, monkeypatch):
    await steering.apply({WEB: 36001})
    await steering.change({WEB: 36002}, ())
    assert await steering.repair() == 0
    commit = Ruleset.commit

    def commit_after_another(ruleset, messages):
        node.run("nft add table ip other")
        commit(ruleset, messages)

    with monkeypatch.context() as busy:
        busy.setattr(Ruleset, "commit", commit_after_another)
        await steering.change({DNS: 36003}, ())
    # At this repair, everything is compared.
    assert [await steering.repair(), await steering.repair()] == [0, 0]
    assert "36001" not in node.run("nft list set inet userspace-proxy guarded")


@pytest.mark.parametrize("repairs", [1, 3])
async def test_a_reused_port_is_guarded_after_three_repairs(node, steering, repairs):
    await steering.apply({WEB: 36001})
    await steering.change({}, [WEB])
    assert [await steering.repair() for _ in range(repairs)] == [0] * repairs
    await steering.change({WEB: 36001}, ())
    assert [await steering.repair() for _ in range(3)] == [0, 0, 0]
    assert "tcp . 36001" in node.run("nft list set inet userspace-proxy guarded")


async def test_a_port_of_an_earlier_run_is_guarded_until_the_second_repair(node, steering):
    await steering.apply({WEB: 36001})
    await steering.close()
    guarded = "nft list set inet userspace-proxy guarded"
    async with succeeding() as successor:
        await successor.apply({WEB: 36002})
        assert "tcp . 36001" in node.run(guarded)
        assert [await successor.repair(), await successor.repair()] == [0, 0]
    assert "36001" not in node.run(guarded)


async def test_a_rejected_kernel_path_change_has_no_effect_until_retried(steering, monkeypatch):
    await steering.apply({WEB: 36001})
    cart = Frontend("10.96.7.2", 80, Protocol.TCP)
    wanted = {WEB: REFUSE, cart: to_endpoint("10.244.1.2")}
    with monkeypatch.context() as broken:
        broken.setattr(x, "pick", lambda *_: expression("no_such_expression"))
        with pytest.raises(SteeringError, match="No such file"):
            await steering.change(wanted, ())
    assert await steering.render() == "TCP 10.96.7.1:80 -> :36001"
    assert await steering.repair() == 0
    await steering.apply(wanted)
    assert (await steering.render()).endswith(", in the kernel to 10.244.1.2:8080")


async def test_without_socket_lookup_the_guard_omits_the_socket_check(node, steering, monkeypatch):
    monkeypatch.setattr(rules, "TO_OTHER_SOCKET", expression("no_such_expression"))
    await steering.apply({WEB: 36001})
    assert await steering.render() == "TCP 10.96.7.1:80 -> :36001"
    assert steering.unguarded == "this kernel has no nft_socket"
    assert "socket" not in node.run("nft list table inet userspace-proxy")


async def test_ports_set_by_another_program_count_as_stale(node, steering):
    await steering.apply({WEB: 36001, CART: 36002})
    node.run(
        f"nft 'delete element {MAP} {{ 10.96.7.1 . tcp . 80, 10.96.7.2 . tcp . 80 }};"
        f"add element {MAP} {{ 10.96.7.1 . tcp . 80 : 6666, 10.96.0.10 . udp . 53 : 7777 }}'"
    )
    assert await steering._do(stale_after_restoring) == {WEB: {6666}, DNS: {7777}, CART: set()}


async def test_all_former_ports_of_a_removed_frontend_count_as_stale(node, steering):
    await steering.apply({DNS: 36001})
    node.run(
        f"nft 'delete element {MAP} {{ 10.96.0.10 . udp . 53 }};"
        f"add element {MAP} {{ 10.96.0.10 . udp . 53 : 36002 }}'"
    )
    await steering._do(stale_after_restoring)
    await steering.change({}, [DNS])
    assert await steering._do(lambda programmer: programmer._stale) == {DNS: {36001, 36002}}


async def test_all_ports_in_elements_removed_by_a_repair_count_as_stale(steering):
    await steering.apply({})
    removed = all_elements({DNS: 36001}, 0) | all_elements({DNS: 36002}, 0)
    await steering._do(lambda programmer: programmer._note_repair(Repair(removed=removed)))
    assert await steering._do(lambda programmer: programmer._stale) == {DNS: {36001, 36002}}


async def test_former_targets_of_a_quickly_returning_frontend_count_as_stale(node, steering):
    await steering.apply({WEB: to_endpoint("10.244.1.2")})
    await steering.change({}, [WEB])
    await steering.change({WEB: 36003}, ())
    assert await steering._do(lambda programmer: programmer._stale) == {WEB: {36002}}


@pytest.mark.parametrize("ends", ["another run without the frontend", "clean_up by another run"])
async def test_flows_to_endpoints_of_an_earlier_run_end_with_their_frontend(
    node, steering, dial, ends
):
    await steering.apply({DNS: to_endpoint("10.244.1.2", 53)})
    dial(DNS)
    assert count_flows(node) == 1
    await steering.close()
    if ends == "clean_up by another run":
        other = NftablesSteering(FACTS)
        await other.clean_up()
        await other.close()
        assert node.run("nft list tables") == ""
    else:
        async with succeeding() as successor:
            await successor.apply({})
    assert count_flows(node) == 0


async def test_flows_to_an_earlier_runs_endpoints_end_even_if_the_first_apply_seemed_to_fail(
    node, steering, dial, monkeypatch
):
    to_pod = to_endpoint("10.244.1.2", 53)
    await steering.apply({DNS: to_pod})
    dial(DNS)
    await steering.close()
    write_all = KernelPath._write_all

    def write_without_an_answer(path):
        write_all(path)
        raise SteeringError("no answer")

    async with succeeding() as successor:
        with monkeypatch.context() as lost:
            lost.setattr(KernelPath, "_write_all", write_without_an_answer)
            with pytest.raises(SteeringError, match="no answer"):
                await successor.apply({WEB: to_pod})
        await successor.apply({})
    assert count_flows(node) == 0


async def test_flows_of_an_earlier_run_end_even_if_the_first_apply_seemed_to_fail(
    node, steering, dial, monkeypatch
):
    await steering.apply({DNS: 36001})
    dial(DNS)
    await steering.close()
    write_all = module.KeptTable.write_all

    def write_without_an_answer(table):
        write_all(table)
        raise SteeringError("no answer")

    async with succeeding() as successor:
        with monkeypatch.context() as lost:
            lost.setattr(module.KeptTable, "write_all", write_without_an_answer)
            with pytest.raises(SteeringError, match="no answer"):
                await successor.apply({DNS: 36002})
        await successor.apply({})
    assert count_flows(node) == 0


async def test_flows_to_an_earlier_runs_refuse_port_end_with_their_frontend(node, steering, dial):
    await steering.apply({DNS: REFUSE})
    # The rules of this chain would prevent such a flow.
    node.run("nft flush chain inet userspace-proxy input")
    dial(DNS)
    assert count_flows(node) == 1
    await steering.repair()
    await steering.close()
    async with succeeding(SteeringFacts(refuse_port=35998)) as successor:
        await successor.apply({})
    assert count_flows(node) == 0


@pytest.mark.parametrize("then", ["other endpoint", "not steered", "clean_up"])
async def test_udp_flows_to_endpoints_of_a_partially_failed_first_apply_end(
    node, steering, begin, monkeypatch, then
):
    """The run crashed, or its first apply failed, after it wrote the table of the kernel path."""
    one, other = to_endpoint("10.244.1.2"), to_endpoint("10.244.1.3")
    with monkeypatch.context() as broken:

        def fail(*_):
            raise SteeringError("cannot list conntrack entries")

        broken.setattr(StaleEntries, "check", fail)
        with pytest.raises(SteeringError, match="list"):
            await steering.apply({WEB: one, DNS: one})
    begin(WEB, DNS)
    if then == "clean_up":
        await steering.clean_up()
    else:
        await steering.apply({WEB: other, DNS: other} if then == "other endpoint" else {})
    assert count_flows(node) == 0
    # A SYN's entry is removed only if its frontend is steered; other entries may be any program's.
    assert count_flows(node, socket.IPPROTO_TCP) == (then != "other endpoint")


@pytest.mark.parametrize("then", ["another port", "another port after none"])
async def test_a_dropped_syn_does_not_follow_its_conntrack_entry_to_the_old_port(
    node, steering, begin, then
):
    """The client retransmits the SYN, which would be refused on the old port."""
    await steering.apply({WEB: 36001})
    with dropping(36001):
        begin(WEB)
    assert count_flows(node, socket.IPPROTO_TCP) == 1
    if then == "another port after none":
        await steering.change({}, [WEB])
        await steering.forget_stale()
    await steering.change({WEB: 36003}, ())
    await steering.forget_stale()
    assert count_flows(node, socket.IPPROTO_TCP) == 0


@pytest.mark.parametrize("then", ["removed", "refused"])
async def test_the_conntrack_entry_of_an_unanswered_syn_ends_once_its_port_serves_another_frontend(
    node, steering, begin, then
):
    """Issue 75: the retransmitted SYN was served by an endpoint of another Service."""
    await steering.apply({WEB: 36001, CART: REFUSE})
    with dropping(36001):
        begin(WEB)
    changed, gone = ({}, [WEB]) if then == "removed" else ({WEB: REFUSE}, [])
    await steering.change(changed, gone)
    await steering.forget_stale()
    assert count_flows(node, socket.IPPROTO_TCP) == 1, "the entry ended early"
    await steering.change({CART: 36001}, ())
    await steering.forget_stale()
    assert count_flows(node, socket.IPPROTO_TCP) == 0


@pytest.mark.parametrize("then", ["clean_up", "nothing steered", "next run"])
async def test_the_conntrack_entry_of_an_unanswered_syn_ends_with_the_last_rule_to_its_proxy_port(
    node, steering, begin, then
):
    """Issue 75: the retransmitted SYN reached a program that had bound the port in the meantime."""
    await steering.apply({WEB: 36001})
    with dropping(36001):
        begin(WEB)
    if then == "clean_up":
        await steering.clean_up()
    elif then == "nothing steered":
        await steering.apply({})
    else:
        await steering.close()
        async with succeeding() as successor:
            await successor.apply({CART: 36001})
    assert count_flows(node, socket.IPPROTO_TCP) == 0


async def test_frontends_that_return_to_their_proxy_port_have_no_stale_ports(steering):
    frontends = [WEB, replace(WEB, port=81)]
    await steering.apply(dict.fromkeys(frontends, 36001))
    for target in (REFUSE, 36001):
        await steering.change(dict.fromkeys(frontends, target), ())
    assert await steering._do(lambda programmer: programmer._stale) == {}


async def test_only_a_bounded_number_of_former_frontends_is_kept(steering, monkeypatch):
    monkeypatch.setattr("userspace_proxy.steering.programmer._LEFT_MAX", 1)
    shop = replace(WEB, port=81)
    await steering.apply({WEB: 36001, CART: 36002, shop: 36003})
    await steering.change({}, [WEB, CART])
    assert await steering._do(lambda programmer: list(programmer._left.values())) == [{CART}]


async def test_the_conntrack_entry_of_an_unanswered_syn_ends_despite_drift_of_the_other_table(
    node, steering, begin
):
    one, other = to_endpoint("10.244.1.2"), to_endpoint("10.244.1.3")
    await steering.apply({WEB: one})
    begin(WEB)
    node.run("nft add rule inet userspace-proxy prerouting counter")
    await steering.change({WEB: other}, ())
    await steering.forget_stale()
    assert count_flows(node, socket.IPPROTO_TCP) == 0


async def test_conntrack_entries_of_syns_end_when_their_frontend_returns(node, steering, begin):
    await steering.apply({WEB: to_endpoint("10.244.1.2")})
    begin(WEB)
    await steering.change({}, [WEB])
    await steering.forget_stale()
    await steering.change({WEB: 36002}, ())
    await steering.forget_stale()
    assert count_flows(node, socket.IPPROTO_TCP) == 0


async def test_a_flow_ends_with_its_endpoint_even_if_the_kernel_path_is_off(node, steering, dial):
    await steering.apply({DNS: to_endpoint("10.244.1.2")})
    dial(DNS)
    for ip, flows in (("10.244.1.2", 1), ("10.244.1.3", 0)):
        await steering.change({DNS: replace(to_endpoint(ip), is_on=False)}, ())
        await steering.forget_stale()
        assert count_flows(node) == flows


async def test_conntrack_entries_of_refused_clients_are_deleted_when_endpoints_change(
    node, steering, dial
):
    """Clients on the node have an entry even if the kernel refuses their datagrams."""
    rtp = replace(DNS, last=99)
    await steering.apply({rtp: REFUSE})
    dial(rtp)
    assert count_flows(node) == 1
    target = replace(to_endpoint("10.244.1.2"), port=REFUSE)
    await steering.change({rtp: target}, ())
    await steering.forget_stale()
    assert count_flows(node) == 0
    rendered = "UDP 10.96.0.10:53 -> refuse, in the kernel to 10.244.1.2:8080"
    assert await steering.render() == rendered
    dial(rtp)
    await steering.change({rtp: replace(target, choices=())}, ())
    await steering.forget_stale()
    assert count_flows(node) == 0


async def test_flows_of_a_removed_frontend_end_even_if_its_element_drifted(node, steering, dial):
    await steering.apply({DNS: 36002})
    dial(DNS)
    node.run(
        f"nft 'delete element {MAP} {{ 10.96.0.10 . udp . 53 }};"
        f"add element {MAP} {{ 10.96.0.10 . udp . 53 : 7777 }}'"
    )
    await steering.change({}, [DNS])
    await steering.forget_stale()
    assert count_flows(node) == 0


async def test_flows_to_an_endpoint_set_by_another_program_end_at_the_repair(node, steering, dial):
    right, wrong = (SocketAddress(ip, 53) for ip in ("10.244.1.2", "10.244.1.9"))
    await steering.apply({DNS: to_endpoint(*right)})
    key = rules.frontend_key(DNS) + pack_number(0)
    elements = (("endpoints4", key, pack_endpoint(one)) for one in (right, wrong))
    change = TableWriter("userspace-proxy/paths")
    change.change_elements(("endpoints4",), {next(elements)}, {next(elements)})
    with node, Ruleset() as another:
        another.commit(change.messages)
    dial(DNS)
    assert await steering.repair() == 1
    assert count_flows(node) == 0


async def test_flows_to_a_former_address_of_the_node_end(node, steering, dial):
    node.run("ip address add 10.1.0.1/32 dev lo; ip link add v0 type veth; ip link set v0 up")
    await steering.apply({DNS: 36002})
    lead_as_outside(node, DNS, 36002)
    dial(DNS)
    await steering.repair()
    assert count_flows(node) == 1
    node.run("ip address del 10.1.0.1/32 dev lo; ip address add 10.1.0.2/32 dev lo")
    await steering.repair()
    assert count_flows(node) == 0


@pytest.mark.parametrize(("frontend", "version"), [(DNS, 4), (DNS_6, 6)])
async def test_flows_translated_to_a_removed_interface_address_end(
    node, steering, dial, frontend, version
):
    ip = "fd00::2/128" if version == 6 else "10.1.0.1/32"
    node.run(f"ip address add {ip} dev lo")
    await steering.apply({frontend: 36002})
    # This rule translates flows as REDIRECT does for clients outside this node.
    kind, to = ("ip6", "[fd00::2]") if version == 6 else ("ip", "10.1.0.1")
    node.run(rf"""
        nft add table {kind} client
        nft add chain {kind} client output {{ type nat hook output priority -150\; }}
        nft add rule {kind} client output udp dport 53 dnat to {to}:36002""")
    dial(frontend)
    await steering.repair()
    assert count_flows(node, version=version) == 1
    node.run(f"ip address del {ip} dev lo")
    await steering.repair()
    assert count_flows(node, version=version) == 0


async def test_a_new_run_ends_flows_to_a_node_address_removed_between_runs(node, steering, dial):
    node.run("ip address add 10.1.0.1/32 dev lo")
    await steering.apply({DNS: 36002})
    lead_as_outside(node, DNS, 36002)
    dial(DNS)
    await steering.close()
    node.run("ip address del 10.1.0.1/32 dev lo; nft delete table inet userspace-proxy")
    await steering.start()
    await steering.apply({DNS: 36002})
    assert count_flows(node) == 0


async def test_rules_not_yet_updated_to_a_new_node_address_are_updated_by_the_next_repair(
    node, steering, monkeypatch
):
    node.run("ip address add 10.1.0.1/24 dev lo")
    await steering.apply({WEB: 36001})
    node.run("ip link add v0 type veth; ip link set v0 up")
    with monkeypatch.context() as broken:
        refused = TableWriter("userspace-proxy", INET)
        refused.add_rule("prerouting", expression("no_such_expression"))
        broken.setattr(module, "write_prerouting", lambda _shape: refused.messages)
        with pytest.raises(SteeringError, match="No such file"):
            await steering.change({DNS: 36002}, ())
    await steering.repair()
    assert "dnat ip to 10.1.0.1:" in node.run("nft list chain inet userspace-proxy prerouting")
    assert await steering.render() == "TCP 10.96.7.1:80 -> :36001"
    node.run("ip address add 10.2.0.1/24 dev lo; ip address del 10.1.0.1/24 dev lo")
    await steering.repair()
    for chain in ("prerouting", "prerouting_ranges"):
        listed = node.run(f"nft list chain inet userspace-proxy {chain}")
        assert (listed.count("dnat ip to 10.2.0.1:"), listed.count("redirect")) == (1, 1)


async def test_a_flow_ends_even_if_its_removal_and_the_next_change_were_rejected(
    node, steering, dial, monkeypatch
):
    def refuse(*_):
        raise SteeringError("refused")

    await steering.apply({DNS: 36001})
    dial(DNS)
    with monkeypatch.context() as broken:
        broken.setattr(StaleEntries, "forget_changed", refuse)
        await steering.apply({})
        broken.setattr(module.KeptTable, "change", refuse)
        with pytest.raises(SteeringError, match="refused"):
            await steering.change({DNS: 36002}, ())
    await steering.repair()
    assert count_flows(node) == 0


async def test_stale_entries_are_removed_while_no_descriptor_is_free(
    node, steering, dial, monkeypatch
):
    def refuse(_protocol):
        raise OSError(errno.EMFILE, "Too many open files")

    await steering.apply({DNS: 36001})
    dial(DNS)
    with monkeypatch.context() as limited:
        limited.setattr(Requests, "open", refuse)
        await steering.apply({})
    assert count_flows(node) == 0


@pytest.mark.parametrize("undoing", ["refused", "done"])
async def test_a_flow_to_an_endpoint_of_a_rejected_change_ends(
    node, steering, dial, monkeypatch, undoing
):
    await steering.apply({})
    commit, commits = Ruleset.commit, itertools.count()

    def commit_the_kernel_path_alone(ruleset, messages):
        if next(commits):
            raise NftablesError(errno.ENOMEM, "")
        return commit(ruleset, messages)

    def refuse_after_a_client(*_):
        dial(DNS)
        raise SteeringError("Cannot allocate memory")

    with monkeypatch.context() as broken:
        if undoing == "refused":
            broken.setattr(Ruleset, "commit", commit_the_kernel_path_alone)
        else:
            broken.setattr(module.KeptTable, "change", refuse_after_a_client)
        with pytest.raises(SteeringError, match="Cannot allocate memory"):
            await steering.change({DNS: to_endpoint("10.244.1.2", 53)}, ())
    if undoing == "refused":
        dial(DNS)
    await assert_a_repair_ends_the_flow(node, steering)
    assert await steering.kernel_connections() == {}


async def test_a_flow_translated_to_an_endpoint_by_another_program_ends(node, steering, dial):
    """The frontend isn't steered any more, but it had endpoints in the table until the repair."""
    choice = EndpointChoice((SocketAddress("10.244.1.2", 53),))
    await steering.apply({DNS: KernelTarget(36002, (choice,))})
    await steering.change({}, [DNS])
    await steering.forget_stale()
    await steering._do(lambda programmer: restore_without_noting(programmer, DNS, choice))
    dial(DNS)
    await assert_a_repair_ends_the_flow(node, steering)


async def test_conntrack_entries_of_a_removed_address_are_deleted_despite_a_rejected_change(
    node, steering, begin, monkeypatch
):
    """The refused change would have removed the frontend, which is still steered."""
    node.run("ip address add 10.1.0.1/32 dev lo")
    await steering.apply({WEB: 36001})
    lead_as_outside(node, WEB, 36001)
    node.run("ip address del 10.1.0.1/32 dev lo; ip route add 10.1.0.1/32 dev lo")
    begin(WEB)
    assert count_flows(node, socket.IPPROTO_TCP) == 1
    with monkeypatch.context() as broken:
        refused = TableWriter("userspace-proxy", INET)
        refused.add_rule("prerouting", expression("no_such_expression"))
        broken.setattr(module.KeptTable, "steps", lambda *_: [refused.messages])
        with pytest.raises(SteeringError, match="No such file"):
            await steering.change({}, [WEB])
    await steering.repair()
    assert count_flows(node, socket.IPPROTO_TCP) == 0
    assert [await steering.repair() for _ in range(2)] == [0, 0]
    assert "tcp . 36001" in node.run("nft list set inet userspace-proxy guarded")


@pytest.mark.parametrize(
    "chain",
    [
        "type nat hook prerouting priority -110; ip daddr 10.96.7.1 dnat ip to 10.0.0.9;",
        "type filter hook input priority 0; tcp dport 36002 drop;",
    ],
    ids=["translates-before-the-proxy-port", "drops-at-the-proxy-port"],
)
@pytest.mark.parametrize("is_on", [True, False])
async def test_a_chain_takes_only_frontends_that_the_kernel_path_does_not_translate_first(
    node, steering, chain, is_on
):
    await steering.apply({WEB: replace(to_endpoint("10.244.1.2"), is_on=is_on)})
    node.run(f"nft 'table inet evil {{ chain first {{ {chain} }}; }}'")
    await steering.repair()
    assert (WEB in steering.unsteered) is not is_on


async def test_only_ipv6_frontends_are_unsteered_if_ipv6_is_disabled(node, steering):
    web_6 = Frontend("fd00:96::1", 80, Protocol.TCP)
    node.run("echo 1 | tee /proc/sys/net/ipv6/conf/*/disable_ipv6")
    await steering.apply({WEB: 36001, web_6: 36001})
    await steering.repair()
    assert steering.unsteered.keys() == {web_6}
    node.run("echo 0 | tee /proc/sys/net/ipv6/conf/*/disable_ipv6")
    await steering.repair()
    assert steering.unsteered == {}
