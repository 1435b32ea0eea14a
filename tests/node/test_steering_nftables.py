"""Steering by nftables in real namespaces: the contract, the table as text, and its traffic."""

from __future__ import annotations

import resource
import subprocess
import sys
from contextlib import contextmanager
from textwrap import dedent

import pytest
import steering_nodes as nodes
from steering_contract import CART, DNS, OUTSIDE, WEB, WEB_6, AtomicSteeringContract
from steering_traffic import ACK, FACTS, FIN, RST, SYN, TARGETS, net_of, send_segment

from userspace_proxy.errors import SteeringConflict, SteeringError
from userspace_proxy.model import Frontend, Protocol
from userspace_proxy.steering import REFUSE, Steering, SteeringFacts, make_steering

pytestmark = pytest.mark.netns
# Another's firewall before and behind us, with sets, counters, and a chain of our chain's name.
FOREIGN = """
    nft '
        table inet firewall {
            set ports { type inet_service; elements = { 22, 443 }; }
            chain prerouting {
                type nat hook prerouting priority -100
                tcp dport 9 redirect to :10
            }
            chain input {
                type filter hook input priority 0
                tcp dport @ports counter accept
            }
        }
        table ip userspace-proxy {
            chain prerouting {
                ip saddr 10.9.9.0/24 return
            }
        }'
    iptables-legacy -t nat -A PREROUTING -s 10.9.9.0/24 -j RETURN"""


@pytest.fixture
def cluster():
    """A node and a pod; the test's thread stands in the node."""
    nodes.need_namespaces()
    cluster = nodes.Cluster()
    with cluster.node:
        yield cluster
    cluster.close()


@pytest.fixture
def node(cluster):
    return cluster.node


@pytest.fixture
async def steering(node):
    steering = make_steering("nftables", FACTS)
    await steering.start()
    yield steering
    await steering.close()


@pytest.fixture
def web(node):
    with nodes.proxy_listener(node, 36001) as server:
        yield server


@contextmanager
def no_more_descriptors():
    """Let conntrack be out of reach, after the kernel has taken the rules."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextmanager
def owned_table():
    """Let a table of our name be another program's own."""
    pipe = subprocess.PIPE
    with subprocess.Popen(["nft", "-i"], stdin=pipe, stdout=pipe, text=True) as owner:
        assert owner.stdin is not None
        assert owner.stdout is not None
        print("add table inet userspace-proxy { flags owner; }\nlist ruleset", file=owner.stdin)
        owner.stdin.flush()
        assert any("flags owner" in line for line in owner.stdout)
        yield
        owner.stdin.close()


def last_words_without_net_admin(program: str) -> str:
    """Return the last line of what a Python program says that may not change rules."""
    command = ["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin", sys.executable]
    done = subprocess.run([*command, "-c", program], capture_output=True, text=True)
    return done.stderr.splitlines()[-1]


class TestNftablesSteering(AtomicSteeringContract):
    @pytest.fixture
    def steerings(self, node):
        self.node = node
        return lambda: make_steering("nftables", FACTS)

    def in_force(self) -> str:
        return nodes.ruleset(self.node)

    def obstacle(self, _frontend: Frontend):
        return no_more_descriptors()

    def break_it(self, steering: Steering) -> None:
        self.node.run("nft flush ruleset")


class TestNftablesSteeringWithoutItsRules(TestNftablesSteering):
    def break_it(self, steering: Steering) -> None:
        self.node.run("nft flush table inet userspace-proxy")


async def test_the_table_of_a_node(node, steering):
    await steering.apply({WEB: 36001, CART: REFUSE, DNS: 36002, WEB_6: 36001})
    assert nodes.ruleset(node) == dedent("""\
        table inet userspace-proxy {
            map frontends4 {
                type ipv4_addr . inet_proto . inet_service : inet_service
                elements = {
                    10.96.0.10 . udp . 53 : 36002
                    10.96.7.1 . tcp . 80 : 36001
                    10.96.7.2 . tcp . 80 : 35999
                }
            }

            map frontends6 {
                type ipv6_addr . inet_proto . inet_service : inet_service
                elements = {
                    fd00:96::1 . tcp . 80 : 36001
                }
            }

            set guarded {
                type inet_proto . inet_service
                elements = {
                    tcp . 36001
                    udp . 36002
                }
            }

            chain prerouting {
                type nat hook prerouting priority dstnat - 10; policy accept;
                meta l4proto { tcp, udp } meta nfproto ipv4 redirect to :ip daddr . meta l4proto . th dport map @frontends4
                meta l4proto { tcp, udp } meta nfproto ipv6 redirect to :ip6 daddr . meta l4proto . th dport map @frontends6
            }

            chain output {
                type nat hook output priority -110; policy accept;
                meta l4proto { tcp, udp } meta nfproto ipv4 redirect to :ip daddr . meta l4proto . th dport map @frontends4
                meta l4proto { tcp, udp } meta nfproto ipv6 redirect to :ip6 daddr . meta l4proto . th dport map @frontends6
            }

            chain input {
                type filter hook input priority filter - 10; policy accept;
                tcp flags syn / syn,ack meta l4proto . tcp dport @guarded ct status ! dnat reject with tcp reset
                meta l4proto . udp dport @guarded ct status ! dnat reject
                tcp flags syn / syn,ack meta l4proto . tcp dport @guarded socket transparent 0 reject
                meta l4proto . udp dport @guarded socket transparent 0 reject
                tcp flags syn / syn,ack tcp dport 35999 ct status dnat socket transparent 0 reject
                udp dport 35999 ct status dnat reject
            }
        }
    """)  # noqa: E501


async def test_we_touch_only_what_bears_our_name(node, steering):
    node.run(FOREIGN)
    before = nodes.ruleset(node), nodes.tables(node)
    await steering.apply({WEB: 36001})
    await steering.apply({DNS: 36001})
    node.run("nft flush table inet userspace-proxy")
    assert await steering.repair() > 0
    await steering.clean_up()
    assert (nodes.ruleset(node), nodes.tables(node)) == before


@pytest.mark.parametrize(
    ("command", "drifted"),
    [
        pytest.param("flush chain inet userspace-proxy prerouting", 2, id="chain-flushed"),
        pytest.param("insert rule inet userspace-proxy output return", 1, id="rule-added"),
        pytest.param("add chain inet userspace-proxy more", 1, id="chain-added"),
        pytest.param("flush map inet userspace-proxy frontends4", 2, id="map-flushed"),
        pytest.param("flush set inet userspace-proxy guarded", 2, id="guard-flushed"),
        pytest.param(
            "delete element inet userspace-proxy frontends4 { 10.96.7.1 . tcp . 80 }",
            1,
            id="element-removed",
        ),
        pytest.param(
            "add element inet userspace-proxy frontends4 { 10.96.9.9 . tcp . 80 : 1 }",
            1,
            id="element-added",
        ),
        pytest.param(
            "delete element inet userspace-proxy frontends4 { 10.96.7.1 . tcp . 80 };"
            "add element inet userspace-proxy frontends4 { 10.96.7.1 . tcp . 80 : 6666 }",
            1,
            id="element-changed",
        ),
    ],
)
async def test_drift_is_counted_in_elements_and_lines(node, steering, command, drifted):
    await steering.apply({WEB: 36001, DNS: 36002})
    before = nodes.ruleset(node)
    node.run(f"nft '{command}'")
    assert await steering.repair() == drifted
    assert nodes.ruleset(node) == before
    assert await steering.repair() == 0


async def test_what_others_do_to_their_tables_is_no_drift(node, steering):
    await steering.apply({WEB: 36001})
    node.run(FOREIGN)
    before = nodes.ruleset(node)
    assert await steering.repair() == 0
    assert nodes.ruleset(node) == before


async def test_a_change_meets_an_element_that_somebody_has_taken_or_replaced(node, steering):
    await steering.apply({WEB: 36001, DNS: 36002})
    node.run(
        "nft 'delete element inet userspace-proxy frontends4 { 10.96.7.1 . tcp . 80 };"
        "add element inet userspace-proxy frontends4 { 10.96.7.2 . tcp . 80 : 6666 }'"
    )
    await steering.apply({CART: 36003, DNS: 36002})
    assert await steering.render() == "TCP 10.96.7.2:80 -> :36003\nUDP 10.96.0.10:53 -> :36002"
    assert await steering.repair() == 0


async def test_a_change_writes_no_rule(node, steering):
    """A rule that is written anew has another handle."""
    await steering.apply({WEB: 36001, DNS: 36002})
    before = node.run("nft -a list chains; nft -a list chain inet userspace-proxy prerouting")
    await steering.apply({WEB: 36003, CART: REFUSE})
    after = node.run("nft -a list chains; nft -a list chain inet userspace-proxy prerouting")
    assert "# handle" in after
    assert after == before


async def test_a_refuse_port_of_an_earlier_run_is_no_proxy_port(node, steering):
    await steering.apply({WEB: 36001, CART: REFUSE})
    await steering.close()
    successor = make_steering("nftables", SteeringFacts(refuse_port=35888))
    assert await successor.start() == {WEB: 36001, CART: 0}
    await successor.apply({WEB: 36001, CART: REFUSE})
    assert "35999" not in nodes.ruleset(node)
    await successor.close()


async def test_many_frontends_come_and_go(node, steering):
    """More than one message takes, and more than a socket without rights takes at once."""
    many = {Frontend(f"10.96.{i // 250}.{i % 250}", 80, Protocol.TCP): 1 + i for i in range(15_000)}
    await steering.apply(many)
    assert len((await steering.render()).splitlines()) == len(many)
    few = dict(list(many.items())[::3])
    await steering.apply(few)
    assert len((await steering.render()).splitlines()) == len(few)
    assert await steering.repair() == 0
    await steering.apply({})
    assert await steering.render() == ""


async def test_a_table_that_another_program_owns_is_a_conflict(node):
    steering = make_steering("nftables", FACTS)
    with owned_table():
        with pytest.raises(SteeringConflict, match="another program owns it"):
            await steering.start()
        with pytest.raises(SteeringError):
            await steering.apply({WEB: 36001})
    await steering.close()


async def test_without_a_right_one_line_says_what_is_missing(node):
    program = dedent("""
        import asyncio
        from userspace_proxy.steering import SteeringFacts, make_steering
        asyncio.run(make_steering("nftables", SteeringFacts(refuse_port=35999)).start())
    """)
    assert last_words_without_net_admin(program) == (
        "userspace_proxy.errors.SteeringError: cannot query nftables: Operation not permitted "
        "(run as root or grant NET_ADMIN, or run with --steering=none)"
    )


@pytest.mark.parametrize("where", ["pod", "node"])
async def test_a_policy_of_drop_behind_us_keeps_no_dialler_of_a_proxy_port_waiting(
    cluster, steering, web, where
):
    client = net_of(cluster, where)
    await steering.apply(TARGETS)
    cluster.node.run("iptables-legacy -P INPUT DROP; iptables-legacy -A INPUT -i lo -j ACCEPT")
    assert not nodes.can_dial(client, nodes.NODE_IP, 36001)
    with client.udp() as asker:
        asker.connect((nodes.NODE_IP, 36002))
        assert nodes.is_refused(asker)


@pytest.mark.parametrize("where", ["pod", "node", "bare-pod"])
async def test_what_kube_proxy_has_left_behind_does_not_win(cluster, steering, web, where):
    client = net_of(cluster, where)
    cluster.node.run("""
        for chain in PREROUTING OUTPUT; do
            iptables-legacy -t nat -A $chain -d 10.96.7.1 -p tcp --dport 80 -j REDIRECT --to-ports 9
        done""")
    await steering.apply(TARGETS)
    assert nodes.can_dial(client, WEB.ip, 80)


@pytest.mark.parametrize(
    "flags",
    [
        pytest.param(SYN, id="syn"),
        pytest.param(SYN | FIN, id="syn-fin"),
        pytest.param(SYN | RST, id="syn-rst"),
        pytest.param(SYN | ACK, id="syn-ack"),
        pytest.param(ACK, id="ack"),
        pytest.param(FIN, id="fin"),
        pytest.param(0, id="nothing"),
    ],
)
async def test_no_segment_that_was_not_steered_opens_a_connection(cluster, steering, web, flags):
    await steering.apply(TARGETS)
    send_segment(cluster.pod, (nodes.NODE_IP, 36001), flags)
    assert cluster.node.run("ss -Htan state syn-recv state established") == ""


async def test_an_open_connection_outlives_a_restart_a_flush_and_its_frontend(
    cluster, steering, web
):
    await steering.apply(TARGETS)
    client = cluster.pod.tcp()
    client.connect(WEB.address)
    server, _ = web.accept()
    server.settimeout(nodes.DEADLINE_S)

    def speak() -> None:
        client.send(b"still here")
        assert server.recv(100) == b"still here"

    await steering.close()
    successor = make_steering("nftables", FACTS)
    await successor.apply(TARGETS)
    speak()
    cluster.node.run("nft flush ruleset")
    assert await successor.repair() > 0
    speak()
    await successor.apply({DNS: 36002})
    speak()
    client.close()
    server.close()
    await successor.close()


async def test_dnat_stays_through_a_restart_and_goes_with_the_address(cluster, steering, web):
    cluster.add_bare_pod()
    await steering.apply(TARGETS)
    before = nodes.ruleset(cluster.node)
    assert "dnat ip to 10.1.0.1:ip daddr" in before
    cluster.node.run("ip link del cali0")
    await steering.close()
    successor = make_steering("nftables", FACTS)
    await successor.start()
    await successor.apply(TARGETS)
    assert nodes.ruleset(cluster.node) == before
    cluster.node.run("ip address del 10.1.0.1/24 dev pod0; ip address add 10.1.0.9/24 dev pod0")
    assert await successor.repair() > 0
    assert "dnat" not in nodes.ruleset(cluster.node).partition("chain input")[0]
    await successor.close()


async def test_outside_addresses_and_refusals_change_place(steering):
    await steering.apply({OUTSIDE: 36001, CART: REFUSE})
    await steering.apply({OUTSIDE: REFUSE, CART: 36001})
    assert await steering.render() == ("TCP 10.96.7.2:80 -> :36001\nTCP 198.51.100.7:443 -> refuse")
    assert await steering.repair() == 0


@pytest.mark.parametrize("priority", [-150, -110])
async def test_a_chain_that_translates_a_frontend_first_is_named(cluster, steering, web, priority):
    await steering.apply({WEB: 36001, DNS: 36002})
    assert await steering.repair() == 0
    assert steering.unsteered == {}
    cluster.node.run(f"""nft '
        table ip evil {{
            chain pre {{
                type nat hook prerouting priority {priority}
                ip daddr 10.96.0.0/16 jump more
            }}
            chain more {{ tcp dport 80 counter redirect to :9; }}
        }}'""")
    assert not nodes.can_dial(cluster.pod, WEB.ip, 80)
    assert await steering.repair() == 0
    assert steering.unsteered == {
        WEB: f"nftables chain ip evil pre of another program (prerouting, priority {priority}) "
        "translates it before this proxy does; delete that rule, or give the chain a priority "
        "above -110"
    }
    cluster.node.run("nft flush chain ip evil more")
    assert await steering.repair() == 0
    assert steering.unsteered == {}
    assert nodes.can_dial(cluster.pod, WEB.ip, 80)


async def test_nat_of_ordinary_nodes_is_no_reason_for_alarm(node, steering):
    await steering.apply({WEB: 36001})
    node.run("""
        iptables-nft -t nat -N KUBE-SERVICES
        iptables-nft -t nat -A PREROUTING -j KUBE-SERVICES
        iptables-nft -t nat -A KUBE-SERVICES -d 10.96.7.1 -p tcp --dport 80 -j REDIRECT --to-ports 9
        nft 'add table ip proxy; add chain ip proxy pre { type nat hook prerouting priority -150; };
            add set ip proxy users { type ipv4_addr; };
            add rule ip proxy pre ip saddr @users tcp dport 80 redirect to :3128'""")
    assert await steering.repair() == 0
    assert steering.unsteered == {}
