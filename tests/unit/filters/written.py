"""Parses rules in nft's syntax into values."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator

from userspace_proxy.filters.chains import RuleVerdict, Step
from userspace_proxy.filters.matches import (
    DRAWN,
    Bits,
    Condition,
    LoadedField,
    Match,
    MatchField,
    Ports,
    SetLookup,
    Unknown,
    Value,
)

_READ = {
    "ct original ip daddr": LoadedField(MatchField.DIALLED_ADDRESS, 4),
    "ct original ip6 daddr": LoadedField(MatchField.DIALLED_ADDRESS, 16),
    "ip daddr": LoadedField(MatchField.DESTINATION, 4),
    "ip6 daddr": LoadedField(MatchField.DESTINATION, 16),
    "ip saddr": LoadedField(MatchField.SOURCE, 4),
    "ip6 saddr": LoadedField(MatchField.SOURCE, 16),
    "iifname": LoadedField(MatchField.WAY_IN, 16, is_name=True),
    "th dport": LoadedField(MatchField.DESTINATION_PORT, 2),
    "ct state": LoadedField(MatchField.STATE, 4),
    "meta l4proto": LoadedField(MatchField.PROTOCOL, 1),
    "numgen": DRAWN,
}
_ANY = "|".join(_READ)


def nft(verdict: str = "", text: str = "") -> Step:
    """Return a rule with a verdict: ``nft("jump x", "tcp dport 80 ct state new")``."""
    word, _, target = verdict.partition(" ")
    return Step(RuleVerdict(word), conditions(text), target)


def read(line: str) -> Step:
    """Parse a rule in the form ``condition: verdict``."""
    text, _, verdict = line.rpartition(": ")
    return nft(verdict, text)


def conditions(text: str) -> tuple[Condition, ...]:
    """Parse conditions; ``…`` stands for a condition that the product can't parse."""
    found: list[Condition] = []
    while text := text.strip():
        for pattern, make in _CONDITIONS:
            if words := re.match(rf"(?:{pattern})(?= |$)", text):
                found += make(*words.groups())
                text = text[words.end() :]
                break
        else:
            raise ValueError(text)
    return tuple(found)


def _networks(text: str) -> tuple[Value, ...]:
    return tuple(ipaddress.ip_network(one) for one in text.split(","))


def _ports(text: str) -> tuple[Value, ...]:
    ends = (one.partition("-") for one in text.split(","))
    return tuple(Ports(int(first), int(last or first)) for first, _, last in ends)


def _at_port(protocol: str, way: str, sign: str | None, text: str) -> Iterator[Condition]:
    if protocol != "th":
        yield Match(MatchField.PROTOCOL, (protocol,))
    if text.startswith("@"):
        yield SetLookup((_READ[f"th {way}"],), text[1:], bool(sign))
    else:
        yield Match(MatchField(f"th {way}"), _ports(text), bool(sign))


_CONDITIONS: list[tuple[str, Callable[..., list[Condition] | Iterator[Condition]]]] = [
    (r"(…)", lambda _: [Unknown()]),
    (
        rf"((?:{_ANY})(?: \. (?:{_ANY}))*) (!= )?@(\S+)",
        lambda fields, sign, name: [
            SetLookup(tuple(_READ[one] for one in fields.split(" . ")), name, bool(sign))
        ],
    ),
    (r"(tcp|udp|th|\d+) (dport|sport) (!= )?(\S+)", _at_port),
    (r"(tcp|udp)(?= …)", lambda protocol: [Match(MatchField.PROTOCOL, (protocol,))]),
    (
        r"(ct original )?ip6? ([sd])addr (!= )?(\S+)",
        lambda dialled, way, sign, text: [
            Match(MatchField(f"{dialled or ''}ip {way}addr"), _networks(text), bool(sign))
        ],
    ),
    (r"ct original proto-dst (\d+)", lambda text: [Match(MatchField.DIALLED_PORT, _ports(text))]),
    (
        r"(meta l4proto|meta nfproto|ct state) (!= )?(\S+)",
        lambda field, sign, text: [Match(MatchField(field), tuple(text.split(",")), bool(sign))],
    ),
    (r"ct status (! )?dnat", lambda sign: [Match(MatchField.TRANSLATED, ("dnat",), bool(sign))]),
    (
        r"fib daddr type (!= )?local",
        lambda sign: [Match(MatchField.TO_THIS_NODE, ("local",), bool(sign))],
    ),
    (r"numgen/hash()", lambda _: [Match(MatchField.DRAWN)]),
    (r"limit()", lambda _: [Match(MatchField.LIMIT)]),
    (r"socket transparent()", lambda _: [Match(MatchField.TRANSPARENT_SOCKET)]),
    (
        r"([io]if)(?:name)? (!= )?(\S+)",
        lambda way, sign, text: [
            Match(
                MatchField(way),
                tuple(int(one) if one.isdigit() else one for one in text.split(",")),
                bool(sign),
            )
        ],
    ),
    (
        r"tcp flags (\d+) (==|!=) (\d+)",
        lambda mask, sign, value: [
            Match(MatchField.TCP_FLAGS, (Bits(int(mask), int(value)),), sign == "!=")
        ],
    ),
]
