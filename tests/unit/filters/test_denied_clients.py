from __future__ import annotations

from contextlib import closing

import pytest

from tests.unit.filters.written import nft, read
from userspace_proxy.filters.chains import Chain, ChainTable
from userspace_proxy.filters.denied_clients import DeniedClients
from userspace_proxy.filters.frontends import ALL_NAT, EarlierChains, Translation
from userspace_proxy.filters.packets import FirstPacket
from userspace_proxy.model import Doubt, Frontend, FrontendKind, Protocol
from userspace_proxy.steering.names import is_own_table

EVIL = ChainTable("inet", "evil")
WEB = Frontend("10.96.7.1", 80, Protocol.TCP)
PORT = 36001
TO_WEB = FirstPacket(WEB, PORT)
NODE_PORT = Frontend("192.0.2.9", 30080, Protocol.TCP, FrontendKind.NODE_PORT)
WEB_6 = Frontend("fd00:96::1", 80, Protocol.TCP)
LOOPBACK = Frontend("127.0.0.1", 30080, Protocol.TCP, FrontendKind.NODE_PORT)
DIALLED = "ct original ip daddr 10.96.7.1/32"
FROM_3 = "ip saddr 10.244.3.0/24"


def dropped(rules, others=(), packet=TO_WEB):
    """Return what chains drop, which are written as ``condition: verdict``."""
    chains = {
        name: Chain(EVIL, name, steps=tuple(map(read, lines)))
        for name, lines in {"in": rules, **dict(others)}.items()
    }
    return DeniedClients(chains["in"], chains).dropped(packet)


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        pytest.param([f"{FROM_3} {DIALLED}: drop"], "from 10.244.3.0/24", id="source"),
        pytest.param([f"{FROM_3} tcp dport 36001: reject"], "from 10.244.3.0/24", id="proxy-port"),
        pytest.param(
            [f"ip saddr 10.0.0.1/32,10.0.0.2/32 {DIALLED}: drop"],
            "from 10.0.0.1, 10.0.0.2",
            id="sources",
        ),
        pytest.param(
            [f"ip saddr 10.0.0.1/32,10.0.0.2/32,10.1.0.0/16,10.2.0.0/16,::/8 {DIALLED}: drop"],
            "from 10.0.0.1, 10.0.0.2, 10.1.0.0/16 and 2 more",
            id="many-sources",
        ),
        pytest.param(
            [f"ip saddr != 10.244.0.0/16 {DIALLED}: drop"],
            "except from 10.244.0.0/16",
            id="any-other-source",
        ),
        pytest.param([f"…saddr {DIALLED}: drop"], "from some clients", id="not-readable"),
        pytest.param([f"iifname eth1 {DIALLED}: drop"], "that come in by eth1", id="link"),
        pytest.param([f"iif 1 {DIALLED}: drop"], "that come in by lo", id="link-by-number"),
        pytest.param(
            [f"iif 99999 {DIALLED}: drop"], "that come in by interface 99999", id="link-is-gone"
        ),
        pytest.param(
            [f"iifname != eth1 {DIALLED}: drop"], "that do not come in by eth1", id="other-links"
        ),
        pytest.param(
            [f"iifname eth1 {FROM_3} {DIALLED}: drop"],
            "from 10.244.3.0/24 that come in by eth1",
            id="source-and-link",
        ),
        pytest.param(
            ["ip saddr 10.244.0.0/16: accept", f"{DIALLED}: drop"],
            "except from 10.244.0.0/16",
            id="allowed-before",
        ),
        pytest.param(
            ["ip saddr 10.1.0.0/16: accept", "iifname eth1: accept", f"{DIALLED}: drop"],
            "except from 10.1.0.0/16 and those that come in by eth1",
            id="two-are-allowed",
        ),
        pytest.param(
            [
                "ip saddr 10.244.3.7/32: accept",
                "ip saddr 10.1.0.0/16: accept",
                f"{FROM_3} {DIALLED}: drop",
            ],
            "from 10.244.3.0/24, except from 10.244.3.7",
            id="some-of-them-are-allowed",
        ),
        pytest.param(
            ["ip saddr != 10.1.0.0/16: accept", f"{DIALLED}: drop"],
            "except from others than 10.1.0.0/16",
            id="all-others-are-allowed",
        ),
        pytest.param([f"{FROM_3}: return", f"{DIALLED}: drop"], "except from 10.244.3.0/24"),
        pytest.param(
            ["…: drop", f"{FROM_3} {DIALLED}: drop"], "from 10.244.3.0/24", id="drops-too"
        ),
        pytest.param(
            ["ct state established: accept", f"{FROM_3} {DIALLED}: drop"],
            "from 10.244.3.0/24",
            id="open-connections",
        ),
        pytest.param([f"{FROM_3}: drop"], "", id="list-for-all"),
        pytest.param([f"{FROM_3} tcp dport 80: drop"], "", id="a-port-of-many-services"),
        pytest.param([f"{FROM_3} ct original ip daddr 10.96.0.0/12: drop"], "", id="all-services"),
        pytest.param([f"{FROM_3} ct original ip daddr 10.96.7.2/32: drop"], "", id="another-one"),
        pytest.param([f"{DIALLED}: drop"], "", id="all-clients"),
        pytest.param([f"{FROM_3} {DIALLED} …: drop"], "", id="not-understood"),
        pytest.param([f"{FROM_3} {DIALLED} limit over: drop"], "", id="above-a-limit"),
        pytest.param(["…: accept", f"{FROM_3} {DIALLED}: drop"], "", id="some-accepted-before"),
        pytest.param(["…saddr: vmap", f"{FROM_3} {DIALLED}: drop"], "", id="looked-up-before"),
        pytest.param(["ct status dnat: accept", f"{FROM_3} {DIALLED}: drop"], "", id="admitted"),
        pytest.param(["ip saddr 10.1.0.0/16: accept", "drop"], "", id="allow-list-for-all"),
        pytest.param(["drop", f"{FROM_3} {DIALLED}: drop"], "", id="all-dropped-before"),
        pytest.param([f"{FROM_3} {DIALLED}: jump gone"], "", id="chain-that-was-removed"),
    ],
)
def test_clients_whose_packets_a_rule_for_this_frontend_drops_are_named(rules, expected):
    assert dropped(rules) == expected


@pytest.mark.parametrize(
    ("rules", "inner", "expected"),
    [
        pytest.param([f"{FROM_3}: jump x"], [f"{DIALLED}: drop"], "from 10.244.3.0/24", id="jump"),
        pytest.param([f"{DIALLED}: goto x"], [f"{FROM_3}: drop"], "from 10.244.3.0/24", id="goto"),
        pytest.param(
            ["ip saddr 10.0.0.0/8: jump x"],
            ["ip saddr 10.1.0.0/16: accept", f"{DIALLED}: drop"],
            "from 10.0.0.0/8, except from 10.1.0.0/16",
            id="exception-in-it",
        ),
        pytest.param(
            [f"{DIALLED}: jump x", "drop"],
            [f"{FROM_3}: return", "drop"],
            "except from 10.244.3.0/24",
            id="returns",
        ),
        pytest.param(
            [f"{FROM_3}: jump x", f"{DIALLED}: drop"],
            ["accept"],
            "except from 10.244.3.0/24",
            id="admits",
        ),
        pytest.param(
            [f"{FROM_3}: goto x", f"{DIALLED}: drop"], [], "except from 10.244.3.0/24", id="leaves"
        ),
        pytest.param(["jump x", f"{FROM_3} {DIALLED}: drop"], ["accept"], "", id="admits-all"),
        pytest.param(["goto x", f"{FROM_3} {DIALLED}: drop"], [], "", id="never-returns"),
        pytest.param(
            ["jump x", f"{FROM_3} {DIALLED}: drop"], ["return"], "from 10.244.3.0/24", id="nothing"
        ),
        pytest.param([f"{FROM_3}: jump x"], [f"{FROM_3}: jump x"], "", id="circle"),
    ],
)
def test_rules_in_other_chains_count_with_those_that_lead_to_them(rules, inner, expected):
    assert dropped(rules, {"x": inner}) == expected


@pytest.mark.parametrize(
    ("ports", "expected"),
    [
        pytest.param("30000-32767", "that come in by eth0, except from 192.0.2.5", id="all"),
        pytest.param("22,30080-30090", "that come in by eth0, except from 192.0.2.5", id="some"),
        pytest.param("30100-30200", "", id="others"),
        pytest.param("1024-65535", "", id="and-more"),
    ],
)
def test_node_ports_are_named_by_spans_of_them(ports, expected):
    rules = [f"iifname eth0 ip saddr != 192.0.2.5/32 tcp dport {ports}: drop"]
    assert dropped(rules, packet=FirstPacket(NODE_PORT)) == expected
    assert dropped(rules, packet=FirstPacket(NODE_PORT, PORT)) == "", "translated before"
    cluster_ip = FirstPacket(Frontend("10.96.7.1", 30080, Protocol.TCP))
    assert dropped(rules, packet=cluster_ip) == ""


def test_a_node_port_is_named_by_its_number_before_its_translation():
    rules = [f"{FROM_3} tcp dport 30080: drop"]
    assert dropped(rules, packet=FirstPacket(NODE_PORT)) == "from 10.244.3.0/24"
    assert dropped(rules, packet=FirstPacket(NODE_PORT, PORT)) == ""


def test_what_a_chain_names_shows_which_frontends_have_to_be_followed():
    steps = (nft("drop", f"{FROM_3} {DIALLED}"), nft("accept", "tcp dport 22"))
    chain = Chain(EVIL, "in", steps=steps)
    denied = DeniedClients(chain, {"in": chain})
    assert (denied.named.has(WEB), denied.rules) == (True, 2)
    assert not denied.named.has(Frontend("10.96.7.2", 80, Protocol.TCP))
    harmless = Chain(EVIL, "in", steps=(nft("accept", DIALLED),))
    assert not DeniedClients(harmless, {"in": harmless}).named.has(WEB)


FOR_SOME = """nft '
    table inet evil {
        set blocked { type ipv4_addr; elements = { 10.96.7.1, 10.96.7.3 }; }
        chain in {
            type filter hook input priority 0;
            ip saddr 10.244.3.0/24 ct original ip daddr @blocked drop
            iifname "eth1" tcp dport 36002 drop
        }
    }'"""


def test_that_packets_of_some_clients_are_dropped_is_a_doubt(node):
    node.run(FOR_SOME)
    other, third = (Frontend(f"10.96.7.{number}", 80, Protocol.TCP) for number in (2, 3))
    ports = {WEB: 36001, other: 36002, third: 36003, WEB_6: 36004}
    with closing(EarlierChains(lambda one: Translation(-110, ports[one]), is_own_table)) as earlier:
        found = earlier.look(ports)
    chain = "nftables chain inet evil in of another program (input, priority 0) drops packets to it"
    assert {one: cause.what for one, cause in found.items()} == {
        WEB: f"{chain} from 10.244.3.0/24",
        other: f"{chain} that come in by eth1",
        third: f"{chain} from 10.244.3.0/24",
    }
    assert all(cause.hint.endswith(" if these clients may use it") for cause in found.values())
    assert all(isinstance(cause, Doubt) for cause in found.values())


def test_a_chain_that_drops_node_ports_of_all_but_one_client_is_a_doubt_of_node_ports(node):
    rule = "iifname eth0 ip saddr != 192.0.2.5 tcp dport 30000-32767 drop"
    hook = "type filter hook prerouting priority raw;"
    node.run(f"nft 'table ip guard {{ chain in {{ {hook} {rule}; }}; }}'")
    with closing(EarlierChains(lambda _one: Translation(-110, PORT), is_own_table)) as earlier:
        ((frontend, cause),) = earlier.look([WEB, NODE_PORT, WEB_6]).items()
    assert (frontend, isinstance(cause, Doubt)) == (NODE_PORT, True)
    assert "drops packets to it that come in by eth0, except from 192.0.2.5" in str(cause)


def test_a_certain_cause_stays_where_some_are_dropped_too(node):
    node.run(FOR_SOME)
    hook = "type filter hook input priority -5;"
    node.run(f"nft 'table ip more {{ chain in {{ {hook} tcp dport 36001 drop; }}; }}'")
    with closing(EarlierChains(lambda _one: TRANSLATED[0], is_own_table)) as earlier:
        assert str(earlier.look([WEB])[WEB]).startswith("nftables chain ip more in ")


TRANSLATED = (Translation(-110, PORT), Translation(ALL_NAT, PORT), Translation())
USUAL = {
    "firewalld": """nft '
        table inet firewalld {
            chain filter_INPUT {
                type filter hook input priority filter + 10;
                ct state { established, related } accept
                ct status dnat accept
                iifname "lo" accept
                ct state invalid drop
                ip saddr 203.0.113.0/24 goto filter_IN_drop
                iifname "eth0" goto filter_IN_public
                reject with icmpx admin-prohibited
            }
            chain filter_IN_drop { drop; }
            chain filter_IN_public { tcp dport 22 accept; reject with icmpx admin-prohibited; }
        }'""",
    "ufw": """
        iptables-nft -N ufw-user-input
        iptables-nft -A INPUT -i lo -j ACCEPT
        iptables-nft -A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
        iptables-nft -A INPUT -m conntrack --ctstate INVALID -j DROP
        iptables-nft -A INPUT -j ufw-user-input
        iptables-nft -A INPUT -p udp --dport 137 -j DROP
        iptables-nft -A ufw-user-input -s 203.0.113.7 -j DROP
        iptables-nft -A ufw-user-input -p tcp --dport 80 -s 203.0.113.8 -j REJECT""",
    "docker": """
        iptables-nft -t raw -A PREROUTING -d 172.17.0.2/32 ! -i docker0 -j DROP
        iptables-nft -t raw -A PREROUTING -d 127.0.0.1/32 ! -i lo -p tcp --dport 30080 -j DROP
        iptables-nft -t nat -A PREROUTING -m addrtype --dst-type LOCAL -j RETURN""",
    "kubelet": """
        iptables-nft -N KUBE-FIREWALL
        iptables-nft -A INPUT -j KUBE-FIREWALL
        iptables-nft -A KUBE-FIREWALL ! -s 127.0.0.0/8 -d 127.0.0.0/8 -m comment --comment local \
            -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP""",
    "fail2ban": """nft '
        table inet f2b-table {
            set addr-set-nginx { type ipv4_addr; elements = { 203.0.113.7 }; }
            set addr-set-sshd { type ipv4_addr; }
            chain f2b-chain {
                type filter hook input priority filter - 1;
                tcp dport { 80, 443 } ip saddr @addr-set-nginx reject
                tcp dport 22 ip saddr @addr-set-sshd reject
            }
        }'""",
    "crowdsec": """nft '
        table ip crowdsec {
            set blacklist { type ipv4_addr; flags timeout; }
            chain input { type filter hook input priority -10; ip saddr @blacklist drop; }
        }'""",
    "meters": """nft '
        table inet limits {
            set seen { type ipv4_addr; size 65535; flags dynamic,timeout; timeout 1m; }
            chain pre {
                type filter hook prerouting priority -150;
                ip daddr 10.96.7.1 add @seen { ip saddr limit rate over 50/second } drop
                ip daddr 10.96.7.1 ct state new limit rate over 50/second drop
            }
        }'""",
    "policy": """nft '
        table ip filter {
            chain input {
                type filter hook input priority 0; policy drop;
                ct state vmap { established : accept, related : accept, invalid : drop }
                iif lo accept
                ip saddr { 10.244.0.0/16, 192.0.2.0/24 } accept
                ip saddr 203.0.113.0/24 tcp dport 1024-65535 drop
            }
        }'""",
}


@pytest.mark.parametrize("rules", [pytest.param(rules, id=name) for name, rules in USUAL.items()])
@pytest.mark.parametrize("translation", TRANSLATED)
def test_usual_rulesets_are_no_reason_for_alarm(node, rules, translation):
    node.run(rules)
    # With local steering packets aren't translated, which is what firewalld admits.
    is_rejected = "firewalld" in rules and translation == Translation()
    with closing(EarlierChains(lambda _one: translation, is_own_table)) as earlier:
        found = earlier.look([WEB, WEB_6, LOOPBACK, NODE_PORT])
        assert found.keys() == ({WEB, WEB_6, NODE_PORT} if is_rejected else set())
