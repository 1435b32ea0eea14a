"""Start, crash, restart, drain and stop of a real agent, as clients and the kernel see it."""

import signal
import socket
from types import SimpleNamespace

import pytest

from tests.cluster.waiting import wait_for
from tests.node.agents import CLEANUP, READY_S
from tests.node.clients import ask, refusal
from tests.node.manifests import Service, with_endpoints
from tests.node.testbed import CLIENTS, Testbed, steerings

pytestmark = [pytest.mark.netns, pytest.mark.needs("legacy tables")]

WEB = Service("web", "10.96.0.10")
ECHO = Service("echo", "10.96.0.11", 7, target=81)
DNS = Service("dns", "10.96.0.53", 53, "UDP", target=53)
NOBODY = Service("nobody", "10.96.0.30")
PORT_OF_THE_PAUSE = 41000
# More clients than the kernel's accept queue can hold.
MANY = 200
# State of another program: rules before and after the proxy's rules, chains, marks.
FOREIGN = """
    iptables-legacy -t nat -N FOREIGN
    iptables-legacy -t nat -A FOREIGN -d 203.0.113.9 -p tcp --dport 80 -j RETURN
    iptables-legacy -t nat -A PREROUTING -j FOREIGN
    iptables-legacy -t nat -A OUTPUT -d 203.0.113.9 -j FOREIGN
    iptables-legacy -t nat -A POSTROUTING -s 10.9.9.0/24 -j MASQUERADE
    iptables-legacy -A INPUT -p tcp --dport 9999 -j DROP
    iptables-legacy -A FORWARD -s 10.9.9.0/24 -j ACCEPT
    iptables-legacy -t mangle -A PREROUTING -s 10.9.9.0/24 -j MARK --set-mark 7
    ip6tables-legacy -A INPUT -p udp --dport 9999 -j DROP
    nft 'table ip userspace-proxy { chain prerouting { ip saddr 10.9.9.0/24 return; }; }
    table inet firewall { chain prerouting { type nat hook prerouting priority -100; }; }'
    ip route add 203.0.113.8 via 192.0.2.254; ip route add local 203.0.113.7 dev lo proto static"""


@pytest.fixture(
    scope="module", params=steerings("nftables", "iptables", "local", "local-on-a-node")
)
def node(request, tmp_path_factory):
    """A node with other programs' rules and routes, and a pod, but without an agent."""
    folder = tmp_path_factory.mktemp("agent")
    with Testbed(folder, request.param, clients=CLIENTS) as testbed:
        testbed.shell(FOREIGN)
        testbed.add_pods("one", tcp=8080, echo=81, udp=53)
        yield testbed


@pytest.fixture(scope="module")
def story(node):
    """The life of an agent, run once; the tests below check its stages."""
    story = SimpleNamespace(kernel_before=node.kernel())
    node.agent.flags = ("--drain-timeout=300ms",)
    socks = run_among_others(node, story)
    crash_and_restart(node, story, socks)
    crash_and_clean_up(node, story)
    run_and_stop(node, story)
    yield story
    node.hang_up()


def run_among_others(node, story):
    """Run the first agent; return the sockets of UDP clients with a fixed port."""
    web, *others = (with_endpoints(service, [node.ip("one")]) for service in (WEB, DNS, ECHO))
    # Services that are added later get later ports, so the manifests alone don't determine these.
    node.serve(web)
    node.edit(web, *others, NOBODY)
    node.agent.wait_until_settled(web, *others, NOBODY)
    story.first_pid = node.agent.pid
    socks = {name: client.udp(DNS.address) for name, client in node.clients.items()}
    assert {ask(sock) for sock in socks.values()} == {b"one: hello"}
    story.kernel_running = node.kernel()
    for _ in range(MANY):
        node.agent.dial_the_lock()
    story.second = node.agent.run()
    story.kernel_disturbed = node.kernel()
    return socks


def crash_and_restart(node, story, socks):
    """Kill the agent, check the clients' outcomes, and start it again."""
    node.agent.kill()
    story.down = {
        name: (client.tcp_refusal(WEB.address), refusal(socks[name]))
        for name, client in node.clients.items()
    }
    node.agent.start()
    wait_for("service", lambda: serves(node), deadline_s=READY_S, hint=node.agent.log)
    wait_for("a healthy agent", node.agent.is_healthy)
    story.kernel_restarted = node.kernel()
    story.udp_restarted = {name: ask(sock) for name, sock in socks.items()}


def crash_and_clean_up(node, story):
    """Kill the agent, and remove its leftovers."""
    node.agent.kill()
    story.kernel_crashed = node.kernel()
    story.cleanup = node.agent.run(command=CLEANUP)
    story.cleanup_again = node.agent.run(command=CLEANUP)
    story.kernel_cleaned = node.kernel()


def run_and_stop(node, story):
    """Dial all frontends from all clients, then stop the agent while connections are open."""
    node.agent.start_until_ready()
    connections = {}
    for name, client in node.clients.items():
        assert client.get(WEB.address) == "one"
        assert client.asks(DNS.address) == "one: hello"
        client.tcp_refusal(NOBODY.address)
        connections[name] = client.dial(ECHO.address)
        connections[name].sendall(b"before")
        assert connections[name].recv(100) == b"before"
    story.status = node.agent.stop()
    story.kernel_stopped = node.kernel()
    story.ends = {name: end_of(connection) for name, connection in connections.items()}


def end_of(connection):
    try:
        return connection.recv(100)
    except OSError as exc:
        return type(exc)


def serves(node):
    """Return whether a pod that dials WEB gets the right answer; False without an answer."""
    try:
        return node["pod"].get(WEB.address) == "one"
    except OSError:
        return False


def test_a_second_agent_is_rejected_with_the_first_agents_pid(story):
    first, _, rest = story.second.stderr.partition("\n")
    assert " INFO starting version=" in first
    assert (story.second.returncode, rest) == (
        1,
        f"error: cannot start: another userspace-proxy (pid {story.first_pid}) steers this node "
        "(start it with --take-over to relieve that one, or stop that one first)\n",
    )


def test_a_rejected_command_changes_no_rules_routes_or_ports(story):
    assert story.kernel_disturbed == story.kernel_running


def test_clients_are_refused_immediately_while_the_agent_is_down(story):
    assert story.down == dict.fromkeys(CLIENTS, ("refused", "refused"))


def test_a_crash_and_a_restart_change_no_rules_routes_or_ports(story):
    assert story.kernel_restarted == story.kernel_running


def test_udp_clients_with_a_fixed_port_are_served_after_a_crash_and_a_restart(story):
    assert story.udp_restarted == dict.fromkeys(CLIENTS, b"one: hello")


def test_cleanup_after_a_crash_restores_rules_routes_and_sockets(story):
    assert story.kernel_crashed != story.kernel_before
    assert story.cleanup.returncode == 0
    assert story.kernel_cleaned == story.kernel_before


def test_cleanup_reports_only_existing_state(story):
    assert "INFO cleaned up leftover " in story.cleanup.stderr
    assert "INFO nothing to clean up" in story.cleanup_again.stderr
    assert story.cleanup_again.stderr.count("\n") == 1


def test_a_clean_stop_restores_rules_routes_and_sockets(story):
    assert story.status == 0
    assert story.kernel_running != story.kernel_before
    assert story.kernel_stopped == story.kernel_before


def test_connections_open_at_the_end_of_the_drain_are_reset(story):
    assert story.ends == dict.fromkeys(CLIENTS, ConnectionResetError)


def test_a_connection_may_finish_during_the_drain_before_the_agent_exits(node, story):
    node.agent.flags = ("--drain-timeout=1h",)
    node.agent.start_until_ready()
    stops = node.agent.log().count("stopping")
    connection = node["pod"].dial(ECHO.address)
    connection.sendall(b"before")
    assert connection.recv(100) == b"before"
    node.agent.send(signal.SIGINT)
    wait_for("the drain", lambda: node.agent.log().count("stopping") == stops + 1)
    assert serves(node), "a new client is refused"
    connection.sendall(b"after")
    assert connection.recv(100) == b"after"
    connection.shutdown(socket.SHUT_WR)
    assert connection.recv(100) == b""
    connection.close()
    assert node.agent.wait() == 0


def test_a_client_dialling_during_the_restart_is_served_afterwards_from_the_same_port(node, story):
    """A SYN that is sent without rules leaves a conntrack entry that would misroute later SYNs."""
    clients = [node[name] for name in ("pod", "bridge-pod", "laptop")]
    for client in clients:
        client.dial_without_answer(WEB.address, port=PORT_OF_THE_PAUSE)
    node.agent.start_until_ready()
    for client in clients:
        client.dial(WEB.address, port=PORT_OF_THE_PAUSE)
    node.hang_up()
    assert node.agent.stop() == 0


CLOSE_WAIT = "/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_close_wait"


@pytest.mark.parametrize("successor", ["cleanup", "restart"])
def test_the_close_wait_timeout_raised_by_a_killed_proxy_is_restored(successor, tmp_path):
    state = f"--state-dir={tmp_path / 'state'}"
    with Testbed(tmp_path, "nftables", "--workers=1", state) as testbed:
        agent = testbed.agent
        assert testbed.shell(f"cat {CLOSE_WAIT}") == "60\n"
        agent.start_until_ready()
        assert testbed.shell(f"cat {CLOSE_WAIT}") == "3600\n"
        agent.kill()
        if successor == "restart":
            agent.start_until_ready()
            assert agent.stop() == 0
        else:
            assert agent.run(state, command=CLEANUP).returncode == 0
        assert testbed.shell(f"cat {CLOSE_WAIT}") == "60\n"
