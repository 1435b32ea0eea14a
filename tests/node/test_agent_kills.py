"""All processes are killed at moments that a seed chooses: it serves again, and nothing is left.

    start        while it starts
    change       while it applies a change
    hand-over    while another process takes over: both die
    rest         while nothing changes

After each kill, and before the next start, another program listens on the proxy port that rules
lead to, where the steering allows that. Each client has a source port of its own, because that
program could get one that uses a port again within a minute (docs/adr/0013).
"""

from __future__ import annotations

import contextlib
import itertools
import random
import re
import socket
import time
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from tests.cluster.waiting import wait_for
from tests.node.agents import READY_S
from tests.node.manifests import Service, with_endpoints
from tests.node.testbed import Testbed

pytestmark = [pytest.mark.netns, pytest.mark.long]

STEERINGS = ("nftables", "iptables", "local")
# Fifty in all.
KILLS = 17
SEED = 14
WEB = Service("web", "10.96.0.10")
DNS = Service("dns", "10.96.0.53", 53, "UDP", target=53)
# Added and removed in turn.
CART = Service("cart", "10.96.0.20")
FLAGS = ("--workers=2", "--drain-timeout=1s")
SPANS_S = {"start": 0.6, "change": 0.2, "hand-over": 0.8, "rest": 0.0}
"""How long after the beginning of each a kill may be: until it is over, on an idle machine."""


class Moment(NamedTuple):
    """When all processes are killed."""

    during: str
    after_s: float


def moments(count: int, seed: int) -> list[Moment]:
    """Return that many moments, equally often during each of ``SPANS_S``."""
    chance = random.Random(seed)
    spans = list(SPANS_S.items()) * count
    return [Moment(during, round(chance.uniform(0.0, span), 3)) for during, span in spans[:count]]


class Kills:
    """The test bed's agent, which is killed again and again.

    Args:
        testbed: Its agent doesn't run yet, and has ``FLAGS`` and a state folder.
    """

    def __init__(self, testbed: Testbed) -> None:
        self._testbed = testbed
        self._ips = testbed.add_pods("one", tcp=8080, udp=53)
        self._has_cart = False
        self._source_ports = itertools.count(10_000)
        testbed.serve(*self._services())
        self._rules = {False: self._shown_rules()}
        self._change()
        self._settle()
        self._rules[True] = self._shown_rules()

    def kill_and_start(self, moment: Moment) -> None:
        """Kill it at a moment, start it again, and assert that all is as it should be."""
        agent, pod = self._testbed.agent, self._testbed["pod"]
        port = 0 if agent.steering == "local" else agent.proxy_port("web")
        self._kill(moment)
        assert self._refusal() == "refused", moment
        with self._thief(port):
            assert self._refusal() == "refused", moment
            agent.start()
            wait_for("an answer", self._is_served, deadline_s=READY_S, hint=agent.log)
            self._settle()
        assert pod.asks(DNS.address) == "one: hello", moment
        self._wait_for_rules(moment)

    def _kill(self, moment: Moment) -> None:
        agent = self._testbed.agent
        others = contextlib.ExitStack()
        match moment.during:
            case "start":
                agent.kill()
                agent.start()
            case "change":
                self._change()
            case "hand-over":
                # `Agent.kill` kills the children of one process.
                others.callback(agent.kill)
                others.callback(setattr, agent, "process", agent.process)
                agent.process = None
                agent.flags += ("--take-over",)
                agent.start()
                agent.flags = agent.flags[:-1]
        until = time.monotonic() + moment.after_s
        wait_for("the moment", lambda: time.monotonic() >= until)
        agent.kill()
        others.close()

    @contextlib.contextmanager
    def _thief(self, port: int) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            if port:
                sock = stack.enter_context(self._testbed["node-1"].tcp())
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                sock.bind(("0.0.0.0", port))
                sock.listen()
            yield

    def _services(self) -> list[Service]:
        services = [WEB, DNS, CART] if self._has_cart else [WEB, DNS]
        return [with_endpoints(service, self._ips) for service in services]

    def _change(self) -> None:
        self._has_cart = not self._has_cart
        self._testbed.edit(*self._services())

    def _refusal(self) -> str:
        return self._testbed["pod"].tcp_refusal(WEB.address, port=next(self._source_ports))

    def _is_served(self) -> bool:
        try:
            pod = self._testbed["pod"]
            return pod.get(WEB.address, port=next(self._source_ports)) == "one"
        except ConnectionRefusedError:
            return False

    def _settle(self) -> None:
        agent = self._testbed.agent
        wait_for("a healthy agent", agent.is_healthy, deadline_s=READY_S, hint=agent.log)
        agent.wait_until_settled(*self._services())

    def _wait_for_rules(self, moment: Moment) -> None:
        """Wait until the rules are those of these Services: old ports are guarded for a while."""
        wanted = self._rules[self._has_cart]

        def difference() -> str:
            rules = self._shown_rules()
            return f"{rules - wanted} more, {wanted - rules} missing"

        wait_for(
            f"the rules after {moment}", lambda: self._shown_rules() == wanted, hint=difference
        )

    def _shown_rules(self) -> Counter[str]:
        """Return the rules, and routes of ``local``, without the numbers of proxy ports."""
        text = self._testbed.rules() + self._testbed.shell("ip route show table all proto 117")
        # Lists and ranges, too.
        return Counter(re.sub(r"\b[12]\d{4}\b([,:-]\s*[12]\d{4}\b)*", "PORTS", text).splitlines())


@pytest.mark.parametrize("steering", STEERINGS)
def test_killed_at_any_moment_it_serves_again_with_the_same_rules(steering, tmp_path):
    flags = (*FLAGS, f"--state-dir={tmp_path}/state")
    with Testbed(tmp_path, steering, *flags, clients=["pod", "node-1"]) as testbed:
        kills = Kills(testbed)
        for moment in moments(KILLS, SEED + STEERINGS.index(steering)):
            kills.kill_and_start(moment)
