"""The rules of this proxy as values: nat rules, jumps and the guard for ports; pure.

Rule 1: rules are written as ``iptables-save`` prints them.
Rule 2: nat rules in a chain are mutually exclusive, so their order doesn't matter, except that
rules for port ranges come last. The order of the guard's rules matters.
"""

from __future__ import annotations

import itertools
import re
import socket
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from ...model import Frontend, Protocol, pack_ip
from ..names import PREFIX as PREFIX

# The chains' names, without a named proxy's label. The first two jump to the tree of chains.
PRE = "UPROXY-PRE"
OUT = "UPROXY-OUT"
TCP = "UPROXY-TCP"
UDP = "UPROXY-UDP"
COMMENT = "userspace-proxy"

NAT = "nat"
FILTER = "filter"
GUARDS: Mapping[str, str] = {"tcp": TCP, "udp": UDP}
"""The name of the guard's chain for each protocol."""
PROTOCOLS = tuple(GUARDS)
# The maximum number of ports of a multiport match; a range counts as two. Source: xt_multiport.h,
# XT_MULTI_PORTS.
MULTIPORT_SLOTS = 15
_LAST_PORT = 65535
_NAT_RULE = re.compile(
    r"-d ([0-9a-f.:]+)/(?:32|128) -p (tcp|udp) -m \2 --dport (\d+)(?::(\d+))? -j "
    r"(?:REDIRECT --to-ports (\d+)|DNAT --to-destination ([\d.]+):(\d+))"
)
_JUMP = re.compile(
    r"-d ([0-9a-f.:]+)/(\d+)(?: -p (tcp|udp) -m \3(?: --dport (\d+):(\d+))?)?"
    rf" -j ({PREFIX}\S+)"
)
_REFUSAL = re.compile(r"-p (tcp|udp) -m \1 --dport (\d+) -m conntrack --ctstate DNAT -j .+")


class NatRule(NamedTuple):
    """A rule that sends one frontend's packets to a port of this node."""

    protocol: str
    """``tcp`` or ``udp``."""
    ip: str
    port: int
    """The port, or the first port of a range."""
    to_port: int
    to_ip: str = ""
    """The address for DNAT; empty for REDIRECT to the interface's address."""
    last: int = 0
    """The last port of a range; 0 for a single port."""

    @property
    def frontend(self) -> Frontend:
        return Frontend(self.ip, self.port, Protocol(self.protocol.upper()), last=self.last)

    def __str__(self) -> str:
        ip, prefix = self.ip, 32
        if ":" in ip:
            # iptables-save prints ::1.2.3.4 where Python prints ::102:304, so format the address as
            # libc does.
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
            f"--dport {_span(self.port, self.last or self.port)} -j {target}"
        )

    @classmethod
    def parse(cls, line: str) -> NatRule | None:
        """Return the rule in a line, or None if this proxy would never write it."""
        found = _NAT_RULE.fullmatch(line)
        if found is None:
            return None
        ip, protocol, port, last, redirected, to_ip, to_port = found.groups()
        to = int(redirected or to_port), to_ip or ""
        return cls(protocol, ip, int(port), *to, int(last or 0))


class Jump(NamedTuple):
    """A rule that sends packets for a network, or for ports on an address, to another chain."""

    chain: str
    ip: str
    bits: int
    """The length of the network's prefix."""
    protocol: str = ""
    """``tcp`` or ``udp``; empty for any protocol."""
    first_port: int = 0
    last_port: int = 0

    def __str__(self) -> str:
        ports = f" -p {self.protocol} -m {self.protocol}" if self.protocol else ""
        # iptables-save omits conditions that are always true, so don't write them.
        if ports and (self.first_port, self.last_port) != (0, _LAST_PORT):
            ports += f" --dport {self.first_port}:{self.last_port}"
        return f"-d {self.ip}/{self.bits}{ports} -j {self.chain}"

    @classmethod
    def parse(cls, line: str) -> Jump | None:
        """Return the jump in a line, or None if this proxy would never write it."""
        found = _JUMP.fullmatch(line)
        if found is None:
            return None
        ip, bits, protocol, first, last, chain = found.groups()
        ports = (protocol, int(first or 0), int(last or _LAST_PORT)) if protocol else ("", 0, 0)
        return cls(chain, ip, int(bits), *ports)

    def covers(self, rule: NatRule) -> bool:
        """Return whether all packets that a rule matches follow this jump."""
        if self.protocol and not (
            rule.protocol == self.protocol and self.first_port <= rule.port <= self.last_port
        ):
            return False
        behind = (128 if ":" in self.ip else 32) - self.bits
        return _number(rule.ip) >> behind == _number(self.ip) >> behind


class BuiltInJump(NamedTuple):
    """A jump from a built-in chain to a chain of this proxy."""

    chain: str
    target: str
    conditions: str

    @property
    def line(self) -> str:
        return f"{self.conditions} -j {self.target}"

    def __str__(self) -> str:
        return f"-A {self.chain} {self.line}"


def _number(ip: str) -> int:
    return int.from_bytes(pack_ip(ip), "big")


NAT_JUMPS = tuple(
    BuiltInJump(source, to, f"-m comment --comment {COMMENT}")
    for source, to in (("PREROUTING", PRE), ("OUTPUT", OUT))
)

# The match for packets that a rule of the nat table has translated.
_STEERED = "-m conntrack --ctstate DNAT"
# The match for packets to any socket. Without "nowildcard", sockets on 0.0.0.0 and :: would be
# ignored. Source: net/netfilter/xt_socket.c.
_TO_ANY = "-m socket --nowildcard"
_TO_PRIVILEGED = "-m socket --transparent --nowildcard"
# The match for packets after the SYN. It isn't "! --syn", which would also admit a SYN with FIN or
# RST, and rely on the kernel's own stack to drop it.
_LATER_PACKETS = "-p tcp -m tcp ! --tcp-flags SYN,ACK SYN -j ACCEPT"
# iptables-restore lines that are accepted only if both the kernel and iptables support the socket
# match.
SOCKET_CHECK = (f":{TCP} - [0:0]", f"-A {TCP} -p tcp {_TO_PRIVILEGED} -j ACCEPT")


class PortGuard(NamedTuple):
    """The rules that limit access to the steered ports."""

    jumps: tuple[BuiltInJump, ...]
    chains: Mapping[str, tuple[str, ...]]
    """The lines of both chains; may be empty."""


def make_guard(
    ports: Mapping[str, Iterable[int]],
    *,
    refuse_port: int,
    proxy_ports: tuple[int, int] | None = None,
    is_ipv6: bool = False,
    checks_sockets: bool = True,
) -> PortGuard:
    """Return the rules that guard ports.

    Steered packets are admitted only to transparent sockets, which require a privilege, because
    after a crash any process may listen on the ports. TCP without a socket is also admitted: the
    RST of the kernel's own stack reaches every client (see :func:`refusal`). Source: docs/adr/0013.

    Every packet that the node receives passes the jumps, and every packet of a connection passes
    the first rule, so these determine the cost.

    - The jumps check the range of ports; other packets, such as endpoints' answers, enter no chain.
    - For TCP only the SYN is checked, because every connection begins with a SYN: the kernel's own
      stack refuses other segments.
    - UDP has no such packet, so every packet is checked.

    Only ports in use are guarded, not the whole range, because another daemon may listen on a port
    in the range. Later packets of a connection are admitted in the whole range, so that connections
    to a port that was just released continue.

    Args:
        ports: Proxy ports in use of each protocol, ``tcp`` and ``udp``.
        refuse_port: The target of refused frontends; 0 for none.
        proxy_ports: The first and last port of the whole range; None for the ports in use only.
        checks_sockets: Whether the kernel can look up sockets (xt_socket).
    """
    jumps: list[BuiltInJump] = []
    chains: dict[str, tuple[str, ...]] = dict.fromkeys(GUARDS.values(), ())
    for protocol, chain in GUARDS.items():
        used = sorted(set(ports.get(protocol, ())) - {refuse_port})
        edges = [*used, *(proxy_ports or ()), *([refuse_port] if refuse_port else [])]
        if edges:
            span = _span(min(edges), max(edges))
            jumps.append(BuiltInJump("INPUT", chain, _to_ports(protocol, span)))
            unreachable = _unreachable(is_ipv6=is_ipv6)
            chains[chain] = (
                *([_LATER_PACKETS] if protocol == "tcp" else []),
                *_port_lines(protocol, used, unreachable, checks_sockets=checks_sockets),
            )
            if refuse_port:
                if protocol == "tcp" and checks_sockets:
                    chains[chain] += (_to_others(_to_ports("tcp", refuse_port), unreachable),)
                chains[chain] += (refusal(protocol, refuse_port, is_ipv6=is_ipv6),)
    return PortGuard(tuple(jumps), chains)


def refusal(protocol: str, refuse_port: int, *, is_ipv6: bool) -> str:
    """Return the rule that refuses packets that were steered to the refuse port.

    TCP is admitted: there is no listener, and the RST of the kernel's own stack is translated back
    for every client. A RST from REJECT isn't translated back for pods on a bridge with
    bridge-nf-call-iptables, which Kubernetes requires: the kernel sends it untracked, from the
    wrong source, and the client keeps waiting.

    Source: nf_send_reset, where it has nf_bridge_info; docs/adr/0004.
    """
    steered = f"{_to_ports(protocol, refuse_port)} {_STEERED}"
    if protocol == "tcp":
        return f"{steered} -j ACCEPT"
    return f"{steered} -j REJECT --reject-with {_unreachable(is_ipv6=is_ipv6)}"


def read_refuse_port(line: str, *, is_ipv6: bool) -> int | None:
    """Return the port that a line of the guard refuses, or None for any other line."""
    found = _REFUSAL.fullmatch(line)
    if found is None:
        return None
    port = int(found[2])
    return port if line == refusal(found[1], port, is_ipv6=is_ipv6) else None


def _port_lines(
    protocol: str, used: list[int], unreachable: str, *, checks_sockets: bool
) -> Iterator[str]:
    """Yield the rules for the proxy ports in use, which must be sorted."""
    is_tcp = protocol == "tcp"
    if used and is_tcp and checks_sockets:
        # Put this rule first, so that packets to the proxy's listeners skip the rules of all ports.
        yield f"-p tcp {_STEERED} {_TO_PRIVILEGED} -j ACCEPT"
    for chunk in _multiports(used):
        to_ports = f"-p {protocol} -m multiport --dports {chunk}"
        if checks_sockets and is_tcp:
            yield _to_others(to_ports, unreachable)
        to_socket = f" {_TO_PRIVILEGED}" if checks_sockets and not is_tcp else ""
        yield f"{to_ports} {_STEERED}{to_socket} -j ACCEPT"
        yield f"{to_ports} -j REJECT --reject-with {'tcp-reset' if is_tcp else unreachable}"


def _to_others(to_ports: str, unreachable: str) -> str:
    """Return the rule that refuses steered TCP packets for another program's socket.

    It uses ICMP, because a RST from REJECT doesn't reach pods on a bridge (see :func:`refusal`).
    """
    return f"{to_ports} {_STEERED} {_TO_ANY} -j REJECT --reject-with {unreachable}"


def _to_ports(protocol: str, ports: int | str) -> str:
    return f"-p {protocol} -m {protocol} --dport {ports}"


def _unreachable(*, is_ipv6: bool) -> str:
    return "icmp6-port-unreachable" if is_ipv6 else "icmp-port-unreachable"


def _multiports(ports: Iterable[int]) -> Iterator[str]:
    """Yield values of ``--dports``, with runs of ports as ranges: ``36001:36004,36009``."""
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
    """Return a range of ports as ``iptables-save`` prints it."""
    return f"{first}" if first == last else f"{first}:{last}"


def _runs(ports: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Yield the first and last port of each run of consecutive ports; the ports are sorted."""
    first = last = -1
    for port in itertools.chain(ports, (-1,)):
        if first >= 0 and port != last + 1:
            yield first, last
            first = port
        elif first < 0:
            first = port
        last = port
