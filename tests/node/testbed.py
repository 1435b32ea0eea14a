"""A sandbox with clients on all sides, an agent on its node, and the node's kernel as text.

node-1   python -m userspace_proxy run     ◀── pod, bare-pod, bridge-pod, node-1, laptop
         └─ a folder of manifests               (sockets of their namespaces)
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import pytest

from tests import shell
from tests.kernel_needs import BY_STEERING, need
from tests.node.agents import Agent
from tests.node.clients import Client, Sockets
from tests.node.manifests import Service
from userspace_proxy_testing.sandbox import Host, Pod, Sandbox, SandboxError, SandboxNode

CLIENTS = ("pod", "bare-pod", "bridge-pod", "node-1", "laptop")


class Testbed:
    """A sandbox with clients, and an agent on its node.

    Args:
        folder: An empty folder.
        steering: As in :class:`Agent`.
        flags: More flags of the agent.
        clients: A selection of ``CLIENTS``.
        agent: The class of the agent.
    """

    # Prevents pytest from collecting this class.
    __test__ = False

    def __init__(
        self,
        folder: Path,
        steering: str,
        *flags: str,
        clients: Iterable[str] = ("pod", "node-1", "laptop"),
        agent: type[Agent] = Agent,
    ) -> None:
        for part in BY_STEERING.get(steering, ()):
            need(part)
        self.sandbox = Sandbox()
        self.clients: dict[str, Client] = {}
        try:
            self.sandbox.open()
        except SandboxError as exc:
            pytest.skip(str(exc))
        try:
            self.node = self.sandbox.node
            for name in clients:
                self.clients[name] = Client(self._host(name))
            self._sockets = Sockets(self.node)
            self.agent = agent(self.node, self._sockets, folder, steering, *flags)
        except BaseException:
            self.close()
            raise

    def __getitem__(self, name: str) -> Client:
        return self.clients[name]

    def add_pods(self, *names: str, **ports: int | Sequence[int]) -> list[str]:
        """Start pods with one backend each; return their addresses."""
        for name in names:
            self.sandbox.add_pod(name).serve(None, **ports)
        return [self.ip(name) for name in names]

    def pod(self, name: str) -> Pod:
        return self.sandbox.pods[name]

    def ip(self, name: str) -> str:
        return str(self.sandbox.pods[name].ip)

    def serve(self, *services: Service) -> None:
        """Write these Services and start the agent."""
        self.agent.manifests.write(*services)
        self.agent.start_until_ready()

    def edit(self, *services: Service) -> None:
        """Write these Services while the agent runs."""
        self.agent.manifests.write(*services)

    def rules(self) -> str:
        return rules_of(self.shell)

    def kernel(self) -> str:
        return kernel_of(self.shell)

    def shell(self, script: str) -> str:
        """Run a script on the node; return its output."""
        return run_script(self.node, script, self.agent.environment)

    def hang_up(self) -> None:
        """Close connections that tests left open."""
        for client in self.clients.values():
            client.hang_up()

    def close(self) -> None:
        """Stop everything; idempotent."""
        for client in self.clients.values():
            client.close()
        if hasattr(self, "_sockets"):
            self._sockets.close()
        self.sandbox.close()

    def _host(self, name: str) -> Host:
        match name:
            case "node-1":
                return self.node
            case "laptop":
                return self.sandbox.add_outside(name)
            case "bare-pod":
                return self.sandbox.add_pod(name, "unnumbered")
            case "bridge-pod":
                return self.sandbox.add_pod(name, "bridge")
        return self.sandbox.add_pod(name)

    def __enter__(self) -> Testbed:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()


def run_script(node: SandboxNode, script: str, environment: Mapping[str, str]) -> str:
    """Run a script on a node; return its output."""
    # Debian has these tools in sbin, which an unprivileged user's PATH may lack.
    path = {"PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}
    return node.run(shell.script(script), env={**environment, **path}).stdout


def rules_of(run: Callable[[str], str]) -> str:
    """Return all rules of a node, without counters and empty built-in tables."""
    tables = without_noise(run("iptables-legacy-save; ip6tables-legacy-save"))
    return tables + with_sorted_elements(run("nft -s list ruleset"))


def kernel_of(run: Callable[[str], str]) -> str:
    """Return rules, routes and listening sockets of a node as text."""
    show = "ip route show table all; ip -6 route show table all; ip rule; ss -lntuH"
    lines = without_states(run(show)).splitlines(keepends=True)
    return rules_of(run) + "".join(sorted(lines))


def without_noise(text: str) -> str:
    """Return saved tables without comments, counters and built-in tables without rules."""
    kept = []
    for table in re.findall(r"^\*.*?^COMMIT$", text, re.MULTILINE | re.DOTALL):
        table = re.sub(r" \[\d+:\d+\]$", "", table, flags=re.MULTILINE)
        if re.search(r"^-A|^:\S+ (-|DROP)", table, re.MULTILINE):
            kept.append(f"{table}\n")
    return "".join(kept)


def without_states(text: str) -> str:
    """Return routes without link states and expiry times, which change over time.

    Routes that the kernel adds for an IPv6 address are omitted, too: a kernel thread adds them,
        possibly between two listings.
    """
    by_kernel = r"^(?:(?:local|anycast) )?\S*:\S* .*\bproto kernel\b.*\n"
    text = re.sub(by_kernel, "", text, flags=re.MULTILINE)
    return re.sub(r" (linkdown|expires \d+sec)", "", text)


_NEWER = {
    r"tcp flags & \(syn \| ack\) == syn": "tcp flags syn / syn,ack",
    r"(?<!nfproto ipv4 )redirect to :ip daddr": "meta nfproto ipv4 redirect to :ip daddr",
    r"(?<!nfproto ipv6 )redirect to :ip6 daddr": "meta nfproto ipv6 redirect to :ip6 daddr",
    r"(?<!nfproto ipv4 )dnat ip to": "meta l4proto tcp meta nfproto ipv4 dnat ip to",
    r"hook output priority dstnat - 10": "hook output priority -110",
    r"hook output priority dstnat - 8": "hook output priority -108",
}


def with_sorted_elements(listing: str) -> str:
    """Return nft's output with the elements of each set sorted by their text."""

    def sort(found: re.Match[str]) -> str:
        elements = sorted(element.strip() for element in found[1].split(","))
        return "\n".join(["elements = {", *(f"{' ' * 12}{e}" for e in elements), f"{' ' * 8}}}"])

    return re.sub(r"elements = \{([^}]*)\}", sort, listing.expandtabs(4))


def as_older_nft_prints(listing: str) -> str:
    """Return the output of nft 1.1 in the form of 1.0, which also prints redundant matches."""
    for pattern, older in _NEWER.items():
        listing = re.sub(pattern, older, listing)
    return listing


def steerings(first: str, *others: str) -> list[object]:
    """Return parameters for all modes; only the first mode isn't marked for ``make test-all``."""
    return [first, *(pytest.param(other, marks=pytest.mark.long) for other in others)]
