"""Finds firewalls of other programs that would drop steered packets or endpoints' replies; pure.

    client ─▶ frontend ─▶ translation ─▶ INPUT: own chain accepts ─▶ INPUT of others: each may drop
    endpoint's reply to the proxy ─────▶ INPUT of all ────────────▶ likewise

An ``accept`` is final only in its own table; the other tables are evaluated anyway. So this proxy's
legacy chains, first in ``filter``, decide that table only, and its nftables chain decides nothing
but itself. Neither of them accepts endpoints' replies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from ...chains.following import ChainQuestion, follow
from ...kernel.nf_tables.chains import Chain, ChainTable, RuleVerdict, Step, Tables
from ...kernel.nf_tables.matches import Condition, Match, MatchField, Ports, Unknown, states
from ...model import IPFamily
from ...model.quoting import shell_command
from ..names import is_own_table

FIREWALLD = ChainTable("inet", "firewalld")
_FAMILIES = {"ip": IPFamily.IPV4, "ip6": IPFamily.IPV6}
_TRANSLATED = states(["dnat"])
# Matches packets whose socket is transparent, as the listeners' sockets are.
_TRANSPARENT = Match(MatchField.TRANSPARENT_SOCKET)


@dataclass(frozen=True, slots=True)
class Firewall:
    """A chain of another program that drops steered packets, or replies to the proxy."""

    chain: str
    """Family, table and chain."""
    why: str
    """The cause: a rule, or the chain's policy."""
    hint: str
    """The commands, or the setting, that admit all dropped packets."""
    family: IPFamily | None = None
    """Of the packets; None: both."""

    def __str__(self) -> str:
        return f"packets to Services may be dropped on their way in: {self.why}"


def base_chains(tables: Tables, *, kind: str, hook: str) -> Iterator[Chain]:
    """Yield the chains of other programs that the kernel calls at a hook."""
    for table, chains in tables.items():
        if not is_own_table(table):
            for chain in chains.values():
                if chain.kind == kind and chain.hook == hook:
                    yield chain


def find_firewalls(
    nft: Tables, legacy_filter: Tables, steering: str, proxy_ports: tuple[int, int]
) -> list[Firewall]:
    """Return the chains that drop steered packets, or endpoints' replies to the proxy.

    Args:
        nft: Chains of nftables; with rules those that packets to this node pass.
        legacy_filter: The legacy table ``filter``, from :func:`.iptables.read_legacy`.
    """
    if steering in ("none", ""):
        return []
    begins = _begins(proxy_ports, is_translated=steering != "local")
    # The proxy's legacy chains accept steered packets before others' rules of that table.
    begins_in_legacy = None if steering == "iptables" else begins
    return [*_judge(nft, begins, steering), *_judge(legacy_filter, begins_in_legacy, steering)]


@dataclass(frozen=True, slots=True)
class _Certainly:
    """Asks what certainly happens to packets: a rule counts only if all of them meet it.

    It is better to miss a firewall than to blame one that admits the proxy's packets.
    """

    meets_one: Callable[[Condition, RuleVerdict], bool]
    """Whether all meet a rule with one condition."""

    def meets(self, step: Step) -> bool:
        """Part of ChainQuestion."""
        match step.matches:
            case (
                Match(MatchField.PROTOCOL, ("tcp" | "udp",)),
                Match(MatchField.DESTINATION_PORT) as one,
            ):
                return self.meets_one(one, step.verdict)
            case (one,):
                return self.meets_one(one, step.verdict)
        return not step.matches

    def into(self, _step: Step) -> ChainQuestion:
        """Part of ChainQuestion."""
        return self


def _begins(proxy_ports: tuple[int, int], *, is_translated: bool) -> ChainQuestion:
    """Return a question about the first packets of steered connections."""

    def meets_one(one: Condition, _verdict: RuleVerdict) -> bool:
        match one:
            case Match(MatchField.STATE, names):
                return "new" in names or (is_translated and "dnat" in names)
            case Match(MatchField.DESTINATION_PORT, (Ports(first, last),)):
                return is_translated and first <= proxy_ports[0] and proxy_ports[1] <= last
        return one == (_TRANSLATED if is_translated else _TRANSPARENT)

    return _Certainly(meets_one)


def _replies(one: Condition, verdict: RuleVerdict) -> bool:
    """Return whether an endpoint's reply to the proxy certainly meets a condition."""
    # Sets and maps of states that aren't read are assumed to have that of replies.
    if one == Unknown(MatchField.STATE):
        return verdict in (RuleVerdict.ACCEPT, RuleVerdict.MAP)
    return isinstance(one, Match) and one.field is MatchField.STATE and "established" in one.values


def _judge(tables: Tables, begins: ChainQuestion | None, steering: str) -> Iterator[Firewall]:
    """Yield the chains that drop first packets (not checked for None) or replies."""
    for chain in base_chains(tables, kind="filter", hook="input"):
        chains = tables[chain.table]
        first = _why_dropped(chain, chains, begins) if begins else ""
        reply = _why_dropped(chain, chains, _Certainly(_replies))
        if first or reply:
            why = first or f"{reply}, for endpoints' answers to the proxy"
            hint = _hint(chain, steering, drops_first=bool(first), drops_replies=bool(reply))
            yield Firewall(str(chain), why, hint, _FAMILIES.get(chain.table.family))


def _why_dropped(chain: Chain, chains: Mapping[str, Chain], asked: ChainQuestion) -> str:
    """Return why a chain drops packets; empty unless it certainly does."""
    outcome = follow(chain, chains, asked, "filter")
    if outcome.by is not None:
        place, rule = outcome.by
        return f"{'' if place is chain else f'chain {place.name}: '}rule {rule}"
    return "its policy is drop" if outcome.goes_on and chain.policy == "drop" else ""


def _hint(chain: Chain, steering: str, *, drops_first: bool, drops_replies: bool) -> str:
    if chain.table == FIREWALLD and steering != "local" and not drops_replies:
        return "update firewalld to 0.9 or later, which accepts translated packets"
    if chain.table.is_legacy:
        tool = "ip6tables-legacy" if chain.table.family == "ip6" else "iptables-legacy"
        prefix, suffix = f"{tool} -I INPUT", "-j ACCEPT"
        translated, transparent = "-m conntrack --ctstate DNAT", "-m socket --transparent"
        replies = "-m conntrack --ctstate ESTABLISHED,RELATED"
    else:
        place = (*chain.table[:2], chain.name)
        prefix, suffix = shell_command("nft", "insert", "rule", *place), "accept"
        translated, transparent = str(_TRANSLATED), f"{_TRANSPARENT} 1"
        replies = "ct state established,related"
    wanted = [transparent if steering == "local" else translated] if drops_first else []
    wanted += [replies] if drops_replies else []
    return "; ".join(f"{prefix} {condition} {suffix}" for condition in wanted)
