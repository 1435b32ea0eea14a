"""Which rules bear our name, as values: chains, jumps, nat rules and the guard.

Rule 1: nothing here knows python-iptables; text is as ``iptables-save`` prints it.
Rule 2: nat rules of one chain exclude each other, so their order doesn't matter; the guard's
order does.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import NamedTuple

from ..names import PREFIX as PREFIX

# The kernel takes 28 characters (XT_EXTENSION_MAXNAMELEN less one); python-iptables the same.
# A proxy with a name adds its label to them: see names. Chains of the tree hang off the first two.
PRE = "UPROXY-PRE"
OUT = "UPROXY-OUT"
TCP = "UPROXY-TCP"
UDP = "UPROXY-UDP"
COMMENT = "userspace-proxy"

NAT = "nat"
FILTER = "filter"
CHAINS: Mapping[str, tuple[str, ...]] = {NAT: (PRE, OUT), FILTER: (TCP, UDP)}
GUARDS: Mapping[str, str] = {"tcp": TCP, "udp": UDP}
"""The guard's chain of each protocol."""
PROTOCOLS = tuple(GUARDS)
# Source: xt_multiport.h, XT_MULTI_PORTS; a range takes two of them.
MULTIPORT_SLOTS = 15
_LAST_PORT = 65535
_NAT_RULE = re.compile(
    r"-d ([0-9a-f.:]+)/(?:32|128) -p (tcp|udp) -m \2 --dport (\d+) -j "
    r"(?:REDIRECT --to-ports (\d+)|DNAT --to-destination ([\d.]+):(\d+))"
)
_JUMP = re.compile(
    r"-d ([0-9a-f.:]+)/(\d+)(?: -p (tcp|udp) -m \3(?: --dport (\d+):(\d+))?)?"
    rf" -j ({PREFIX}\S+)"
)
_REFUSAL = re.compile(r"-p (tcp|udp) -m \1 --dport (\d+) -m conntrack --ctstate DNAT -j .+")


class NatFrontend(NamedTuple):
    """What clients dial, as rules say it."""

    protocol: str
    ip: str
    port: int


class NatRule(NamedTuple):
    """A rule that brings one frontend's packets to a port of this node."""

    protocol: str
    """``tcp`` or ``udp``."""
    ip: str
    port: int
    to_port: int
    to_ip: str = ""
    """The address for DNAT; empty for REDIRECT, which takes the interface's."""

    @property
    def frontend(self) -> NatFrontend:
        """Whose packets it takes."""
        return NatFrontend(self.protocol, self.ip, self.port)

    def __str__(self) -> str:
        ip, prefix = self.ip, 32
        if ":" in ip:
            # iptables-save writes ::1.2.3.4 where Python writes ::102:304.
            ip, prefix = (
                socket.inet_ntop(socket.AF_INET6, socket.inet_pton(socket.AF_INET6, ip)),
                128,
            )
        target = (
            f"DNAT --to-destination {self.to_ip}:{self.to_port}"
            if self.to_ip
            else f"REDIRECT --to-ports {self.to_port}"
        )
        return (
            f"-d {ip}/{prefix} -p {self.protocol} -m {self.protocol} "
            f"--dport {self.port} -j {target}"
        )

    @classmethod
    def parse(cls, line: str) -> NatRule | None:
        """Return the rule that a line is, or None if this proxy would never write it."""
        found = _NAT_RULE.fullmatch(line)
        if found is None:
            return None
        ip, protocol, port, redirected, to_ip, to_port = found.groups()
        return cls(protocol, ip, int(port), int(redirected or to_port), to_ip or "")


class Jump(NamedTuple):
    """A rule that leads packets for some addresses, or some ports of one, to a chain of ours."""

    chain: str
    ip: str
    bits: int
    """The length of the network's prefix; of one address all bits."""
    protocol: str = ""
    """``tcp`` or ``udp``; empty: whatever there is for these addresses."""
    first_port: int = 0
    last_port: int = 0

    def __str__(self) -> str:
        ports = f" -p {self.protocol} -m {self.protocol}" if self.protocol else ""
        # iptables-save leaves out what every packet has.
        if ports and (self.first_port, self.last_port) != (0, _LAST_PORT):
            ports += f" --dport {self.first_port}:{self.last_port}"
        return f"-d {self.ip}/{self.bits}{ports} -j {self.chain}"

    @classmethod
    def parse(cls, line: str) -> Jump | None:
        """Return the jump that a line is, or None if this proxy would never write it."""
        found = _JUMP.fullmatch(line)
        if found is None:
            return None
        ip, bits, protocol, first, last, chain = found.groups()
        ports = (protocol, int(first or 0), int(last or _LAST_PORT)) if protocol else ("", 0, 0)
        return cls(chain, ip, int(bits), *ports)

    def covers(self, rule: NatRule) -> bool:
        """Return whether all packets that a rule takes are led along."""
        if self.protocol and not (
            rule.protocol == self.protocol and self.first_port <= rule.port <= self.last_port
        ):
            return False
        behind = (128 if ":" in self.ip else 32) - self.bits
        return _number(rule.ip) >> behind == _number(self.ip) >> behind


class Match(NamedTuple):
    """One ``-m`` of a rule, with one option that takes a value, or with options that take none."""

    name: str
    option: str = ""
    value: str = ""
    is_inverted: bool = False
    switches: tuple[str, ...] = ()
    """Options without a value, in the order in which ``iptables-save`` prints them."""

    def __str__(self) -> str:
        sign = "! " if self.is_inverted else ""
        option = [f"{sign}--{self.option} {self.value}"] if self.option else []
        return " ".join([f"-m {self.name}", *option, *(f"--{s}" for s in self.switches)])


class Rule(NamedTuple):
    """A rule of the guard, or a jump to a chain of ours."""

    target: str
    matches: tuple[Match, ...] = ()
    protocol: str = ""
    reject_with: str = ""

    def __str__(self) -> str:
        parts = [f"-p {self.protocol}"] if self.protocol else []
        parts += [*map(str, self.matches), f"-j {self.target}"]
        if self.reject_with:
            parts.append(f"--reject-with {self.reject_with}")
        return " ".join(parts)


class ChainRule(NamedTuple):
    """A rule of the guard, or a jump, and the chain that it stands in."""

    chain: str
    rule: Rule

    def __str__(self) -> str:
        return f"-A {self.chain} {self.rule}"


def _number(ip: str) -> int:
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    return int.from_bytes(socket.inet_pton(family, ip), "big")


NAT_JUMPS = tuple(
    ChainRule(source, Rule(to, (Match("comment", "comment", COMMENT),)))
    for source, to in (("PREROUTING", PRE), ("OUTPUT", OUT))
)


class Guard(NamedTuple):
    """Who may reach the ports that frontends are steered to."""

    jumps: tuple[ChainRule, ...] = ()
    rules: tuple[ChainRule, ...] = ()

    def __str__(self) -> str:
        return "".join(f"{rule}\n" for rule in (*self.jumps, *self.rules))

    def chains(self) -> dict[str, tuple[str, ...]]:
        """Return the lines of both chains, which are there whether or not they have rules."""
        return {
            chain: tuple(str(rule.rule) for rule in self.rules if rule.chain == chain)
            for chain in GUARDS.values()
        }


def make_guard(
    ports: Mapping[str, Iterable[int]],
    *,
    refuse_port: int,
    proxy_ports: tuple[int, int] | None = None,
    is_ipv6: bool = False,
    checks_sockets: bool = True,
) -> Guard:
    """Return the guard of these ports.

    What was steered is let in to a transparent socket, which only a privileged program can have,
    as this proxy's are: after a crash any process may listen on our ports. Where there is no
    socket, TCP is let in, too: the RST of the kernel's own stack reaches every client (see
    :func:`refusal`). Source: docs/adr/0013.

    Every packet that the node gets meets the jumps, and every packet of a connection the
    first rule, so that is where the cost lies:

    - The jumps ask for the range of ports; what goes elsewhere, like the answers of
      endpoints, passes by without entering a chain.
    - Of TCP only the SYN is asked how it came, as without one there is no connection: the
      kernel's own stack refuses whatever else arrives.
    - UDP has no such packet: each is asked.

    Exactly the ports in use are guarded, not their range: another daemon of the node may
    listen inside the range, and who may open a connection to it is not ours to say. The later
    packets of a connection are let in on all the range, so that those to a port that has just
    been given back stay until they end.

    Args:
        ports: Proxy ports in use of each protocol, ``tcp`` and ``udp``.
        refuse_port: Where refused frontends are steered to; 0 where there is none.
        proxy_ports: First and last port that proxy ports come from.
        is_ipv6: Whether the rules are for ip6tables.
        checks_sockets: Whether the kernel can look up sockets (xt_socket).
    """
    jumps: list[ChainRule] = []
    rules: list[ChainRule] = []
    for protocol, guard in GUARDS.items():
        used = sorted(set(ports.get(protocol, ())) - {refuse_port})
        edges = [*used, *(proxy_ports or ()), *([refuse_port] if refuse_port else [])]
        if not edges:
            continue
        span = Match(protocol, "dport", _span(min(edges), max(edges)))
        jumps.append(ChainRule("INPUT", Rule(guard, (span,), protocol)))
        if protocol == "tcp":
            rules.append(ChainRule(guard, _LATER_PACKETS))
        make = _Admission(protocol, is_ipv6=is_ipv6, checks_sockets=checks_sockets)
        found = [*make.for_ports(used), *(make.for_refuse_port(refuse_port) if refuse_port else ())]
        rules += [ChainRule(guard, rule) for rule in found]
    return Guard(tuple(jumps), tuple(rules))


class _Admission(NamedTuple):
    """Makes the rules of one protocol."""

    protocol: str
    is_ipv6: bool
    checks_sockets: bool

    def for_ports(self, used: list[int]) -> Iterator[Rule]:
        """Yield the rules for proxy ports in use, sorted."""
        is_tcp = self.protocol == "tcp"
        if used and is_tcp and self.checks_sockets:
            # First, so that what our listeners get doesn't pass all the ports.
            yield Rule("ACCEPT", (_STEERED, _TO_PRIVILEGED), "tcp")
        for chunk in _multiports(used):
            match = Match("multiport", "dports", chunk)
            if not self.checks_sockets:
                yield Rule("ACCEPT", (match, _STEERED), self.protocol)
            elif is_tcp:
                yield self._keep_from_strangers(match)
                yield Rule("ACCEPT", (match, _STEERED), "tcp")
            else:
                yield Rule("ACCEPT", (match, _STEERED, _TO_PRIVILEGED), "udp")
            reject_with = _reject_with(self.protocol, is_ipv6=self.is_ipv6)
            yield Rule("REJECT", (match,), self.protocol, reject_with)

    def for_refuse_port(self, port: int) -> Iterator[Rule]:
        """Yield the rules for the refuse port, on which nothing of ours listens."""
        if self.protocol == "tcp" and self.checks_sockets:
            yield self._keep_from_strangers(Match("tcp", "dport", str(port)))
        yield refusal(self.protocol, port, is_ipv6=self.is_ipv6)

    def _keep_from_strangers(self, ports: Match) -> Rule:
        """Return the rule that refuses steered TCP for which there is a socket that isn't ours.

        By ICMP: a RST made by REJECT doesn't reach pods on a bridge (see :func:`refusal`).
        """
        reject_with = _reject_with("udp", is_ipv6=self.is_ipv6)
        return Rule("REJECT", (ports, _STEERED, _TO_ANY), "tcp", reject_with)


def refusal(protocol: str, refuse_port: int, *, is_ipv6: bool) -> Rule:
    """Return the rule by which what was steered to the refuse port is refused.

    TCP is let in: nobody listens there, and the RST of the kernel's own stack is translated
    back for everybody. A RST made by REJECT isn't for pods on a bridge with
    bridge-nf-call-iptables on, as Kubernetes wants it: the kernel sends it past connection
    tracking, with the wrong source, and the client waits.

    Source: nf_send_reset, where it has nf_bridge_info; docs/adr/0004.
    """
    matches = (Match(protocol, "dport", str(refuse_port)), _STEERED)
    if protocol == "tcp":
        return Rule("ACCEPT", matches, protocol)
    return Rule("REJECT", matches, protocol, _reject_with(protocol, is_ipv6=is_ipv6))


def read_refuse_port(line: str, *, is_ipv6: bool) -> int | None:
    """Return the port that a line of the guard refuses, or None for any other line."""
    found = _REFUSAL.fullmatch(line)
    if found is None:
        return None
    port = int(found[2])
    return port if line == str(refusal(found[1], port, is_ipv6=is_ipv6)) else None


# What conntrack says of a packet that a rule of the nat table has brought here.
_STEERED = Match("conntrack", "ctstate", "DNAT")
# Without "nowildcard" sockets on 0.0.0.0 and :: are passed over. Source: net/netfilter/xt_socket.c.
_TO_ANY = Match("socket", switches=("nowildcard",))
_TO_PRIVILEGED = Match("socket", switches=("transparent", "nowildcard"))
# Not --syn: that would let in a SYN with FIN or RST too, which only Linux itself then drops.
_LATER_PACKETS = Rule(
    "ACCEPT", (Match("tcp", "tcp-flags", "SYN,ACK SYN", is_inverted=True),), "tcp"
)

# Edits that a kernel and an iptables take which can look up sockets.
SOCKET_CHECK = (f":{TCP} - [0:0]", f"-A {TCP} {Rule('ACCEPT', (_TO_PRIVILEGED,), 'tcp')}")


def _reject_with(protocol: str, *, is_ipv6: bool) -> str:
    if protocol == "tcp":
        return "tcp-reset"
    return "icmp6-port-unreachable" if is_ipv6 else "icmp-port-unreachable"


def _multiports(ports: Iterable[int]) -> Iterator[str]:
    """Yield ports as ``--dports`` takes them, runs as ranges: ``36001:36004,36009``."""
    chunk: list[str] = []
    slots = 0
    for first, last in _runs(ports):
        need = 1 if first == last else 2
        if slots + need > MULTIPORT_SLOTS:
            yield ",".join(chunk)
            chunk, slots = [], 0
        chunk.append(_span(first, last))
        slots += need
    if chunk:
        yield ",".join(chunk)


def _span(first: int, last: int) -> str:
    """Return ports as ``iptables-save`` prints them."""
    return f"{first}" if first == last else f"{first}:{last}"


def _runs(ports: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Yield the first and last port of each run of neighbours; the ports come sorted."""
    first = last = -1
    for port in chain(ports, (-1,)):
        if first >= 0 and port != last + 1:
            yield first, last
            first = port
        elif first < 0:
            first = port
        last = port
