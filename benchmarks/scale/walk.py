"""Counts the rules that are evaluated for the first packet of a connection.

    client ─▶ ip rule … ─▶ PREROUTING: raw, mangle, nat ─▶ INPUT: mangle, filter, nat ─▶ proxy port

The kernel's counters show which rules matched, not which rules were evaluated. So this module
evaluates the output of iptables-save, nft and ip rule by rule.

Rule 1: a rule that can't be parsed is an error.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, ip_network

from userspace_proxy_testing.sandbox import SandboxNode

from ..metrics import NotMeasured
from ..tools import find_program

_HOOKS = (
    ("PREROUTING", ("raw", "mangle", "nat")),
    ("INPUT", ("mangle", "filter", "security", "nat")),
)
_NFT_HOOKS = ("prerouting", "input")
_FINAL = frozenset({"ACCEPT", "DROP", "REJECT", "REDIRECT", "DNAT", "SNAT", "MASQUERADE"})
_GOES_ON = frozenset({"MARK", "CONNMARK", "LOG", "CT", "NOTRACK"})
# The number of words of options that are evaluated elsewhere, or that always match.
_IGNORED = {"-m": 1, "--comment": 1, "--ctproto": 1, "--reject-with": 1, "--to-ports": 1}
_IGNORED |= {
    "--transparent": 0,
    "--nowildcard": 0,
    "--to-destination": 1,
    "--set-xmark": 1,
    "--save-mark": 0,
    "--restore-mark": 0,
}


@dataclass(slots=True)
class Packet:
    """The first packet of a TCP connection from a pod."""

    src: str
    dst: str
    dport: int
    interface: str
    is_redirected: bool = False


def rules_walked(node: SandboxNode, packets: Sequence[Packet]) -> list[int]:
    """Return the number of rules that each packet passes on a node, in any steering mode.

    Raises:
        NotMeasured: A rule can't be parsed.
        SandboxError: A program failed.
    """
    tables = parse_save(node.run([find_program("iptables-legacy-save")]).stdout)
    nft_rules = count_nft_rules(node.run([find_program("nft"), "list", "ruleset"]).stdout)
    policies = parse_ip_rules(node.run(["ip", "-4", "rule", "show"]).stdout)
    routes = parse_local_routes(node.run(["ip", "-4", "route", "show", "table", "all"]).stdout)
    return [
        walk_tables(tables, packet) + nft_rules + walk_ip_rules(policies, routes, packet)
        for packet in packets
    ]


Chains = dict[str, list[list[str]]]


def parse_save(text: str) -> dict[str, Chains]:
    """Parse the output of iptables-save; return the rules of each table's chains as words."""
    tables: dict[str, Chains] = {}
    chains: Chains = {}
    for line in text.splitlines():
        if line.startswith("*"):
            chains = tables[line[1:]] = {}
        elif line.startswith(":"):
            chains[line[1:].split()[0]] = []
        elif line.startswith("-A "):
            words = shlex.split(line)
            chains[words[1]].append(words[2:])
    return tables


def walk_tables(tables: dict[str, Chains], packet: Packet) -> int:
    """Count the rules that a packet passes in the two hooks; set whether it is redirected."""
    total = 0
    packet.is_redirected = False
    for hook, names in _HOOKS:
        for name in names:
            chains = tables.get(name, {})
            if hook in chains:
                count, verdict = _walk(chains, hook, packet)
                total += count
                if verdict in ("REDIRECT", "DNAT"):
                    packet.is_redirected = True
                if verdict in ("DROP", "REJECT"):
                    return total
    return total


def _walk(chains: Chains, chain: str, packet: Packet) -> tuple[int, str]:
    """Return the number of evaluated rules of a chain and its called chains, and the verdict."""
    count = 0
    for words in chains[chain]:
        count += 1
        matches, target, leaves = _judge(words, packet)
        if not matches or target in _GOES_ON or not target:
            continue
        if target in _FINAL:
            return count, target
        if target == "RETURN":
            return count, ""
        if target not in chains:
            raise NotMeasured(f"the target {target} isn't understood")
        more, verdict = _walk(chains, target, packet)
        count += more
        if verdict or leaves:
            return count, verdict
    return count, ""


def _judge(words: Sequence[str], packet: Packet) -> tuple[bool, str, bool]:
    """Return whether a rule matches, its target, and whether the target is a goto."""
    matches, target, leaves, is_not = True, "", False, False
    rest = iter(words)
    for word in rest:
        if word == "!":
            is_not = True
            continue
        if word in ("-j", "-g"):
            target, leaves = next(rest), word == "-g"
        elif word in _MATCHES:
            matches &= _MATCHES[word](next(rest), packet) is not is_not
        elif word == "--tcp-flags":
            looked_at, wanted = next(rest).split(","), next(rest)
            matches &= (("SYN" in looked_at) == (wanted == "SYN")) is not is_not
        elif word in _IGNORED:
            for _ in range(_IGNORED[word]):
                next(rest)
        else:
            raise NotMeasured(f"{word} isn't understood in the rule {shlex.join(words)}")
        is_not = False
    return matches, target, leaves


def _within(text: str, address: str) -> bool:
    return IPv4Address(address) in ip_network(text, strict=False)


def _is_port(text: str, port: int) -> bool:
    """Return whether a list such as 80, 80:90 or 80,90:100 contains a port."""
    for part in text.split(","):
        low, _, high = part.partition(":")
        if int(low) <= port <= int(high or low):
            return True
    return False


def _has_state(text: str, packet: Packet) -> bool:
    states = {"NEW", *(["DNAT"] if packet.is_redirected else [])}
    return bool(states & set(text.split(",")))


_MATCHES: dict[str, Callable[[str, Packet], bool]] = {
    "-s": lambda text, packet: _within(text, packet.src),
    # After REDIRECT, the destination is the node's address, which no INPUT rule of the agent names.
    "-d": lambda text, packet: _within(text, packet.dst),
    "-p": lambda text, _packet: text in ("tcp", "6", "all"),
    "-i": lambda text, packet: re.fullmatch(text.replace("+", ".*"), packet.interface) is not None,
    "--dport": lambda text, packet: packet.is_redirected or _is_port(text, packet.dport),
    "--dports": lambda text, packet: packet.is_redirected or _is_port(text, packet.dport),
    "--ctstate": _has_state,
    "--dst-type": lambda text, packet: "LOCAL" in text and packet.is_redirected,
    "--mark": lambda text, _packet: int(text.partition("/")[0], 0) == 0,
}


def count_nft_rules(text: str) -> int:
    """Count the rules of nft's chains at the two hooks; with maps, a packet passes fewer."""
    count = 0
    is_ours, depth = False, 0
    for line in map(str.strip, text.splitlines()):
        if line.startswith("chain "):
            depth, is_ours = 1, True
            continue
        if depth == 0:
            continue
        if line == "}":
            depth = 0
        elif line.startswith("type "):
            is_ours = any(f"hook {hook} " in line for hook in _NFT_HOOKS)
        elif is_ours and line and not line.startswith(("policy", "comment")):
            count += 1
    return count


IpRule = tuple[list[str], str]


def parse_ip_rules(text: str) -> list[IpRule]:
    """Parse the output of ip rule; return the conditions and action of each rule, in order."""
    rules = []
    for line in text.splitlines():
        words = line.partition(":")[2].split()
        at = next(
            (
                n
                for n, word in enumerate(words)
                if word in ("lookup", "unreachable", "blackhole", "prohibit", "goto", "nop")
            ),
            len(words),
        )
        rules.append((words[:at], " ".join(words[at:])))
    return rules


def parse_local_routes(text: str) -> dict[str, list[str]]:
    """Return the ranges of the node's own addresses, by routing table."""
    routes: dict[str, list[str]] = {}
    for line in text.splitlines():
        words = line.split()
        if words and words[0] == "local":
            table = words[words.index("table") + 1] if "table" in words else "main"
            routes.setdefault(table, []).append(words[1])
    return routes


def walk_ip_rules(rules: Sequence[IpRule], routes: dict[str, list[str]], packet: Packet) -> int:
    """Count routing rules up to the first whose table delivers locally; all if there is none."""
    for count, (conditions, action) in enumerate(rules, 1):
        if _ip_rule_matches(conditions, packet) and action.startswith("lookup "):
            ranges = routes.get(action.split()[1], [])
            if any(_within(each, packet.dst) for each in ranges):
                return count
    return len(rules)


def _ip_rule_matches(conditions: Sequence[str], packet: Packet) -> bool:
    for key, value in _pairs(conditions):
        if key == "to" and not (value == "all" or _within(value, packet.dst)):
            return False
        if key == "from" and not (value == "all" or _within(value, packet.src)):
            return False
        if key == "dport" and not _is_port(value.replace("-", ":"), packet.dport):
            return False
        if key == "ipproto" and value not in ("tcp", "6"):
            return False
        if key in ("fwmark", "iif", "oif"):
            return False
    return True


def _pairs(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    return zip(words[::2], words[1::2], strict=False)
