"""Parses and applies searches of the page and the JSON: words and qualifiers that must all match.

    web node:node-1 is:refused -cause:not-ready

Rule 1: a word matches any property of a row: name, address, endpoint, node, state, cause or
note. A qualifier matches one property.
Rule 2: matching ignores case, and a substring suffices. States must match from the beginning, so
that ``is:served`` doesn't find "not served"; Services must match completely.
Rule 3: an unknown qualifier is a plain word, because names of Service ports contain colons.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from ..causes.say import say
from ..facts import HealthCheckFacts, IgnoredFacts, Level, PortFacts, RejectedFacts
from ..facts.states import FOUND
from ..model import IPFamily, Protocol, ServiceKey, Side
from ..model.addresses import TO, at_port, ip_of, is_ip, port_of
from ..model.similar import did_you_mean

# Longer searches are truncated. The longest name of a Service port fits, with ``service:`` (199).
MAX_LENGTH = 200

QUALIFIERS = {
    "is": "its state: is:refused, is:served, is:problem, is:busy, is:udp, is:ipv6",
    "ns": "its namespace",
    "name": "its name",
    "service": "a Service, or one port of it, by its whole name: service:shop/web",
    "ip": "an address that clients dial",
    "endpoint": "the address of an endpoint",
    "node": "the node of an endpoint",
    "cause": "why clients aren't served",
}
"""The qualifiers, each with a description of the property that it matches."""
STATES = (
    *(state.search_word for state in FOUND),
    "problem", "busy", "idle", "ejected", "ignored",
    *Level, *Side, *(str(one).lower() for one in (*Protocol, *IPFamily)),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Term:
    """One word of a search; ``key`` is the qualifier, or empty for any property."""

    key: str
    text: str
    """The text to find, in lower case; never empty."""
    is_excluded: bool = False
    """Whether matching rows are excluded."""

    @property
    def in_lines(self) -> str:
        """The text to find between newlines: the beginning of a line, a whole line, or any part."""
        match self.key:
            case "is":
                return f"\n{self.text}"
            case "service":
                return f"\n{self.text}\n"
        return self.text


@dataclass(frozen=True, slots=True)
class Search:
    """A search; without terms it matches everything."""

    terms: tuple[Term, ...] = ()
    text: str = field(default="", compare=False)
    """What the user wrote."""

    @classmethod
    def parse(cls, text: str) -> Search:
        """Parse a user's input; every text is valid."""
        return cls(tuple(filter(None, map(_term, text[:MAX_LENGTH].lower().split()))), text)

    def without_match(self, *, only_unhealthy: bool = False) -> str:
        """Return the sentence for a search that finds nothing, among all or unhealthy Services."""
        which = " that needs attention" if only_unhealthy else ""
        if is_ip(self.text) or is_ip(ip_of(self.text)):
            return f"No served Service{which} has the address {self.text}, nor an endpoint"
        return f"No Service port{which} matches {self.text}"

    @property
    def unknown(self) -> str:
        """An error about the first unknown state, with a suggestion; empty if all are known."""
        for term in self.terms:
            if term.key == "is" and not any(state.startswith(term.text) for state in STATES):
                known = ", ".join(filter(None, STATES))
                hint = did_you_mean(term.text, STATES, prefix="is:") or f"one of {known}"
                return f"there is no state is:{term.text} ({hint})"
        return ""

    def matches_port(self, port: PortFacts, *, is_busy: bool) -> bool:
        """Return whether a Service port matches; ``is_busy`` means that it has traffic now."""
        return self._matches(lambda key: _texts_of_port(port, key, self.terms, is_busy=is_busy))

    def matches_ignored(self, item: IgnoredFacts) -> bool:
        texts = {
            "is": ("ignored",),
            "ns": (item.key.namespace,),
            "name": (f"{item.service}:{item.port}",),
            "service": (item.service, f"{item.service}:{item.port}"),
            "cause": (item.cause.code, say(item.cause)),
        }
        return self._matches(lambda key: texts.get(key, ()))

    def matches_rejected(self, item: RejectedFacts) -> bool:
        """Return whether an invalid object matches, by its name, its problem or its Services."""
        names = tuple(filter(None, (*item.services, f"{item.namespace}/{item.name}".strip("/"))))
        # The ports of a Service that can't be read are unknown, so any port matches.
        wanted = (term.text for term in self.terms if term.key == "service")
        ports = [text for text in wanted if text.partition(":")[0] in map(str.lower, names)]
        texts = {
            "is": ("problem",),
            "ns": [ServiceKey.read(name).namespace for name in names],
            "name": (*names, item.object),
            "service": (*names, *ports),
            "cause": (item.line,),
        }
        return self._matches(lambda key: texts.get(key, ()))

    def matches_health_check(self, item: HealthCheckFacts) -> bool:
        name = f"{item.service}:{item.port}"
        texts = {"ns": (item.key.namespace,), "name": (name,), "service": (item.service, name)}
        return self._matches(lambda key: texts.get(key, ()))

    def _matches(self, texts: Callable[[str], Iterable[str]]) -> bool:
        # Cost: the lines of a row are built once, not for each word: 1 s instead of 16 s for the
        # longest search of 10,000 Service ports with 20 endpoints.
        lines: dict[str, str] = {}
        for term in self.terms:
            is_found = False
            for key in (term.key,) if term.key else QUALIFIERS:
                if key not in lines:
                    lines[key] = "\n".join(("", *texts(key), "")).lower()
                if term.in_lines in lines[key]:
                    is_found = True
                    break
            if is_found is term.is_excluded:
                return False
        return True


def _term(word: str) -> Term | None:
    is_excluded = len(word) > 1 and word.startswith("-")
    word = word[is_excluded:]
    key, colon, text = word.partition(":")
    if colon and key in QUALIFIERS:
        # Ignore a qualifier without a value, which is still being typed.
        return Term(key, text, is_excluded) if text else None
    return Term("", word, is_excluded)


def _texts_of_port(
    port: PortFacts, key: str, terms: Iterable[Term], *, is_busy: bool
) -> Iterable[str]:
    """Return a property of a Service port as texts; a range includes ports that terms name."""
    state = port.state
    match key:
        case "is":
            problem = () if state.level is Level.OK else ("problem",)
            is_ejecting = any(e.ejected_for_s is not None for e in port.endpoints)
            ejected = ("ejected",) if is_ejecting else ()
            words = (state.word.search_word, state.level, port.protocol, port.family, port.side)
            return (*words, "busy" if is_busy else "idle", *problem, *ejected)
        case "ns":
            return (port.namespace,)
        case "name":
            return (port.name,)
        case "service":
            return (port.name, f"{port.namespace}/{port.service}")
        case "ip":
            addresses = [frontend.address for frontend in port.frontends]
            ranges = [address for address in addresses if TO in address]
            return [*addresses, *(at_port(r, port_of(t.text)) for r in ranges for t in terms)]
        case "endpoint":
            return [endpoint.address for endpoint in port.endpoints]
        case "node":
            return [endpoint.node for endpoint in port.endpoints]
        case _:
            causes = (text for cause in state.causes for text in (cause.code, say(cause)))
            return (state.sentence, *causes)
