"""Start, crash, restart, drain and stop of a real agent: what clients and the kernel see."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from dataclasses import dataclass

import agent_harness as harness
import pytest
from agent_harness import CLEANUP, CLIENTS, House, Service, wait_for, with_endpoints

pytestmark = pytest.mark.netns

WEB = Service("web", "10.96.0.10")
ECHO = Service("echo", "10.96.0.11", 7, target=81)
DNS = Service("dns", "10.96.0.53", 53, "UDP", target=53)
NOBODY = Service("nobody", "10.96.0.30")
RESTART_S = 2.0
# On a machine that is busy with other things one restart may be slow; three aren't.
RESTARTS = 3
# What another program of the node may have: rules before and behind ours, chains, marks.
FOREIGN = """
    iptables-legacy -t nat -N FOREIGN
    iptables-legacy -t nat -A FOREIGN -d 203.0.113.9 -p tcp --dport 80 -j REDIRECT --to-ports 9
    iptables-legacy -t nat -A PREROUTING -j FOREIGN
    iptables-legacy -t nat -A OUTPUT -d 203.0.113.9 -j FOREIGN
    iptables-legacy -t nat -A POSTROUTING -s 10.9.9.0/24 -j MASQUERADE
    iptables-legacy -A INPUT -p tcp --dport 9999 -j DROP
    iptables-legacy -A FORWARD -s 10.9.9.0/24 -j ACCEPT
    iptables-legacy -t mangle -A PREROUTING -s 10.9.9.0/24 -j MARK --set-mark 7
    ip6tables-legacy -A INPUT -p udp --dport 9999 -j DROP
    ip route add 203.0.113.8 via 192.0.2.254"""


@pytest.fixture(scope="module", params=["iptables", "local"])
def node(request, tmp_path_factory):
    """A node with what others have there, endpoints, and manifests, but no agent yet."""
    folder = tmp_path_factory.mktemp("agent")
    with House(folder, request.param, "--drain-timeout=1h", clients=CLIENTS) as house:
        house.shell(FOREIGN)
        ips = house.add_pods("one", tcp=8080, echo=81, udp=53)
        house.edit(*(with_endpoints(service, ips) for service in (WEB, ECHO, DNS)), NOBODY)
        yield house


@dataclass
class Story:
    """What was seen of an agent that ran, crashed, ran again, and was stopped."""

    kernel_before: str
    rules_before: str
    kernel_running: str
    rules_running: str
    second: subprocess.CompletedProcess[str]
    cleanup: subprocess.CompletedProcess[str]
    first_pid: int
    kernel_disturbed: str
    down: dict[str, tuple[str, str]]
    restarts_s: list[float]
    kernel_restarted: str
    udp: dict[str, bytes]
    """What clients that kept their port were answered after the restart."""
    status: int
    kernel_after: str


@pytest.fixture(scope="module")
def story(node):
    """The story, told once; the tests below look at its moments."""
    agent = node.agent
    kernel_before, rules_before = node.kernel(), node.rules()
    agent.start_until_ready()
    use_everything(node)
    socks = {name: client.udp(DNS.address) for name, client in node.clients.items()}
    assert {harness.ask(sock) for sock in socks.values()} == {b"one: hello"}
    kernel_running, rules_running, first_pid = node.kernel(), node.rules(), agent.pid
    second, cleanup = agent.run(), agent.run(command=CLEANUP)
    kernel_disturbed = node.kernel()
    agent.kill()
    down = {
        name: (client.tcp_refusal(WEB.address), refusal(socks[name]))
        for name, client in node.clients.items()
    }
    restarts_s = []
    while not restarts_s or (min(restarts_s) > RESTART_S and len(restarts_s) < RESTARTS):
        agent.kill()
        restarts_s.append(seconds_until_served(node))
    wait_for("a healthy agent", agent.is_healthy)
    story = Story(
        kernel_before,
        rules_before,
        kernel_running,
        rules_running,
        second,
        cleanup,
        first_pid,
        kernel_disturbed,
        down,
        restarts_s,
        kernel_restarted=node.kernel(),
        udp={name: harness.ask(sock) for name, sock in socks.items()},
        status=agent.stop(),
        kernel_after=node.kernel(),
    )
    yield story
    node.hang_up()


def use_everything(node):
    """Let clients everywhere use what there is."""
    for client in node.clients.values():
        assert client.get(WEB.address) == "one"
        assert client.asks(DNS.address) == "one: hello"
        client.tcp_refusal(NOBODY.address)


def refusal(sock):
    """Return how a datagram of a connected socket ends."""
    try:
        return harness.ask(sock).decode()
    except OSError as exc:
        return "refused" if isinstance(exc, ConnectionRefusedError) else str(exc)


def serves(node):
    """Return whether a pod is served; refusals and silence are a no."""
    try:
        return node["pod"].get(WEB.address) == "one"
    except OSError:
        return False


def seconds_until_served(node):
    """Start the agent and return after how many seconds a pod is served."""
    began = time.monotonic()
    node.agent.start()
    wait_for("service", lambda: serves(node), deadline_s=harness.READY_S, hint=node.agent.log)
    return time.monotonic() - began


def test_a_running_agent_leaves_the_rules_of_others_as_found(story):
    lines = story.rules_running.splitlines(keepends=True)
    assert "".join(line for line in lines if "UPROXY" not in line) == story.rules_before


def test_a_second_agent_is_refused_with_the_first_ones_pid(story):
    assert (story.second.returncode, story.second.stderr) == (
        1,
        f"error: cannot start: another userspace-proxy (pid {story.first_pid}) steers this node "
        "(stop it first, or run with --steering=none)\n",
    )


def test_cleanup_is_refused_while_an_agent_runs(story):
    assert story.cleanup.returncode == 1
    assert f"another userspace-proxy (pid {story.first_pid})" in story.cleanup.stderr


def test_whoever_is_refused_leaves_the_running_agent_alone(story):
    assert story.kernel_disturbed == story.kernel_running


def test_while_the_agent_is_down_clients_are_refused_and_do_not_wait(story):
    assert story.down == dict.fromkeys(CLIENTS, ("refused", "refused"))


def test_an_agent_serves_within_two_seconds_after_a_crash(story):
    assert min(story.restarts_s) < RESTART_S


def test_a_crash_and_a_restart_change_no_rule_no_route_and_no_port(story):
    assert story.kernel_restarted == story.kernel_running


def test_udp_clients_that_keep_their_port_outlive_a_crash_and_a_restart(story):
    assert story.udp == dict.fromkeys(CLIENTS, b"one: hello")


def test_an_agent_without_connections_stops_at_once(story):
    """Its drain would last for an hour."""
    assert story.status == 0


def test_a_clean_stop_leaves_rules_routes_and_sockets_as_found(story):
    assert story.kernel_running != story.kernel_before
    assert story.kernel_after == story.kernel_before


def test_cleanup_after_a_crash_leaves_rules_routes_and_sockets_as_found(node):
    before = node.kernel()
    node.agent.start_until_ready()
    node.agent.kill()
    left = node.kernel()
    assert node.agent.run(command=CLEANUP).returncode == 0
    assert node.kernel() == before
    assert left != before


def test_an_open_connection_may_finish_during_the_drain(node):
    node.agent.start_until_ready()
    connection = node["pod"].dial(ECHO.address)
    connection.sendall(b"before")
    assert connection.recv(100) == b"before"
    node.agent.send(signal.SIGTERM)
    wait_for("the drain", lambda: not serves(node))
    connection.sendall(b"after")
    assert connection.recv(100) == b"after"
    connection.shutdown(socket.SHUT_WR)
    assert connection.recv(100) == b""
    connection.close()
    assert node.agent.wait() == 0


def test_open_connections_are_reset_at_the_end_of_the_drain(node):
    node.agent.flags = ("--drain-timeout=300ms",)
    node.agent.start_until_ready()
    connections = [client.dial(ECHO.address) for client in node.clients.values()]
    for connection in connections:
        connection.sendall(b"before")
        assert connection.recv(100) == b"before"
    node.agent.send(signal.SIGINT)
    assert node.agent.wait() == 0
    for connection in connections:
        with pytest.raises(ConnectionResetError):
            connection.recv(100)
    node.hang_up()
