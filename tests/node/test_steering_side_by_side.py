"""Two rule-based proxies with different names on one node: each changes only its own rules."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys

import pytest
import steering_nodes as nodes
from steering_contract import CART, DNS, OUTSIDE, WEB, WEB_6, AtomicSteeringContract

from userspace_proxy.agent.lock import NodeLock
from userspace_proxy.model import Frontend
from userspace_proxy.steering import (
    REFUSE,
    Steering,
    SteeringFacts,
    make_steering,
)
from userspace_proxy.steering.names import STEERING_TABLES

pytestmark = [pytest.mark.long, pytest.mark.netns]
STABLE = SteeringFacts(refuse_port=35999, proxy_ports=(36000, 36999))
CANARY = SteeringFacts(refuse_port=35998, proxy_ports=(36000, 36999), proxy_name="canary")
LONG = SteeringFacts(refuse_port=35997, proxy_name="a-name-that-no-chain-has-room-for")
JUMP = "iptables-legacy -t nat -D PREROUTING -j UPROXY-PRE"
CLEANUP = (sys.executable, "-m", "userspace_proxy", "cleanup")


def rules(node: nodes.Net) -> str:
    return nodes.tables(node) + nodes.ruleset(node)


@pytest.fixture
def node(lock_file):
    """A node; the test's thread is in its namespace."""
    nodes.need_namespaces()
    net = nodes.Net("node")
    with net:
        # Tables that existed before the test stay afterwards.
        nodes.tables(net)
        yield net
    net.close()


@pytest.fixture
async def make(node, kind):
    """Return a function that creates and starts steering objects, which are closed at the end."""
    made = []

    async def make(facts: SteeringFacts) -> Steering:
        steering = make_steering(kind, facts)
        made.append(steering)
        await steering.start()
        return steering

    yield make
    for steering in made:
        await steering.close()


@pytest.fixture
async def stable(make):
    """A proxy that has already applied its rules."""
    steering = await make(STABLE)
    await steering.apply({OUTSIDE: 36101, DNS: 36102, CART: REFUSE})
    return steering


class BesideAnother(AtomicSteeringContract):
    """The canary fulfils the whole contract, without an effect on the other proxy."""

    @pytest.fixture
    async def steerings(self, node, stable, kind, lock_file):
        self.node, self.lock_file = node, lock_file
        before = await stable.render()
        yield lambda: make_steering(kind, CANARY)
        assert await stable.render() == before
        assert await stable.repair() == 0

    def in_force(self) -> str:
        return rules(self.node)


@pytest.mark.parametrize("kind", ["iptables"], indirect=True)
class TestBesideAnotherInLegacyTables(BesideAnother):
    def obstacle(self, _frontend: Frontend):
        return nodes.unusable_lock(self.lock_file)

    def break_it(self, steering: Steering) -> None:
        self.node.run(
            "for chain in PRE OUT; do iptables-legacy -t nat -F UPROXY-$chain-canary; done"
        )


@pytest.mark.parametrize("kind", ["nftables"], indirect=True)
class TestBesideAnotherTable(BesideAnother):
    def obstacle(self, _frontend: Frontend):
        return nodes.refused_transactions()

    def break_it(self, steering: Steering) -> None:
        self.node.run("nft delete table inet userspace-proxy-canary")


@pytest.mark.parametrize("facts", [CANARY, LONG], ids=["short-name", "long-name"])
async def test_stopping_one_proxy_leaves_the_other_proxys_rules_unchanged(node, make, facts):
    empty = rules(node)
    one, two = await make(STABLE), await make(facts)
    await one.apply({WEB: 36001, WEB_6: 36001})
    alone = rules(node)
    await two.apply({CART: 36002, DNS: REFUSE, WEB_6: 36002})
    await two.clean_up()
    assert rules(node) == alone
    await two.apply({CART: 36002, DNS: REFUSE})
    await one.clean_up()
    assert await two.repair() == 0
    assert await two.render() == "TCP 10.96.7.2:80 -> :36002\nUDP 10.96.0.10:53 -> refuse"
    await two.clean_up()
    assert rules(node) == empty


@pytest.mark.parametrize(
    ("kind", "command"),
    [
        pytest.param("iptables", "iptables-legacy -t nat -F UPROXY-PRE", id="rules"),
        pytest.param("iptables", f"{JUMP} -m comment --comment userspace-proxy", id="jump"),
        pytest.param("iptables", "iptables-legacy -t filter -F INPUT", id="guards"),
        pytest.param("nftables", "nft delete table inet userspace-proxy", id="table"),
        pytest.param("nftables", "nft flush ruleset", id="tables"),
    ],
    indirect=["kind"],
)
async def test_each_proxy_repairs_only_its_own_drift(node, stable, make, command):
    canary = await make(CANARY)
    await canary.apply({WEB: 36001})
    before = sorted(rules(node).splitlines())
    node.run(command)
    await canary.repair()
    assert sorted(rules(node).splitlines()) != before
    assert await stable.repair() > 0
    assert sorted(rules(node).splitlines()) == before
    assert (await canary.repair(), await stable.repair()) == (0, 0)


async def test_all_proxies_with_rules_are_listed_by_label(node, kind, stable, make):
    canary, long = await make(CANARY), await make(LONG)
    await canary.apply({WEB: 36001})
    await long.apply({WEB_6: 36002})
    labels = STEERING_TABLES.labels_here() if kind == "nftables" else await stable.labels()
    assert labels[0] == ""
    assert labels[2] == "canary"
    assert labels[1].startswith("a-name~")


@pytest.fixture
async def cleanup(node):
    """Run the command ``cleanup``; return its exit status and the last line of its output."""

    async def cleanup(*flags):
        done = await asyncio.to_thread(
            subprocess.run,
            ["nsenter", f"--net=/proc/self/fd/{node.fd}", *CLEANUP, *flags],
            pass_fds=[node.fd],
            capture_output=True,
            text=True,
            timeout=3 * nodes.DEADLINE_S,
        )
        return done.returncode, (done.stderr.strip().splitlines() or [""])[-1]

    return cleanup


async def test_cleanup_removes_the_rules_of_every_proxy(node, make, cleanup):
    empty = rules(node)
    for facts in (STABLE, CANARY, LONG):
        await (await make(facts)).apply({WEB: 36001, WEB_6: 36002})
    assert (await cleanup())[0] == 0
    assert rules(node) == empty


async def test_cleanup_removes_nothing_while_a_proxy_runs(node, stable, make, cleanup):
    await (await make(CANARY)).apply({WEB: 36001})
    before = rules(node)
    lock = NodeLock("canary")
    lock.take()
    assert await cleanup() == (
        1,
        f"error: cannot clean up: userspace-proxy of the name canary (pid {os.getpid()}) "
        "steers this node and would restore its rules "
        "(stop it: it removes its rules when it stops)",
    )
    lock.release()
    assert rules(node) == before


@pytest.fixture
def cluster(lock_file):
    """A node with a route to Services; the test's thread is in its namespace."""
    nodes.need_namespaces()
    cluster = nodes.Cluster()
    with cluster.node:
        yield cluster.node
    cluster.close()


async def test_a_udp_client_of_the_other_proxy_keeps_its_conntrack_entry(cluster, kind):
    stable, canary = (make_steering(kind, facts) for facts in (STABLE, CANARY))
    old, new = nodes.UdpServer(cluster, 36102), nodes.UdpServer(cluster, 36002)
    client = cluster.udp()
    client.connect(DNS.address)
    await stable.apply({DNS: 36102})
    assert nodes.exchange(client, old)
    await canary.apply({DNS: 36002})
    assert nodes.exchange(client, new)
    client.send(b"before")
    await stable.apply({})
    assert new.answer(b"after") == b"before"
    assert client.recv(2048) == b"after"
    for opened in (client, old, new):
        opened.close()
    for steering in (stable, canary):
        await steering.close()
