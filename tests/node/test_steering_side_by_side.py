"""Two rule-based proxies with different names on one node: each changes only its own rules."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest
import steering_nodes as nodes
from steering_contract import CART, DNS, OUTSIDE, WEB, WEB_6

from userspace_proxy.steering import (
    REFUSE,
    Steering,
    SteeringFacts,
    make_steering,
)

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


@pytest.mark.parametrize("facts", [CANARY, LONG], ids=["short-name", "long-name"])
async def test_stopping_one_proxy_does_not_change_the_other_proxys_rules(node, make, facts):
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


@pytest.fixture
async def cleanup(node):
    """Return a function that runs ``cleanup``; it returns the exit status and the last log line."""

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
