"""What the contract of a steering says about where clients are led; shares no code with it.

Source: the docstrings of ``steering.base``.
"""

from __future__ import annotations

import functools
import ipaddress
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from userspace_proxy.model import Frontend, Protocol, SocketAddress
from userspace_proxy.steering.base import REFUSE, KernelTarget, Target

from ..conntrack_entries import Entry
from ..jenkins import jhash
from ..nf_tables_packets import Kind, Outcome
from .plan import ENDPOINTS, PORTS, REFUSE_PORTS, Client, TableNode

# docs: with source hash all nodes lead a client alike, also those of other versions.
_HASH_SEED = 0x7570_7870
LEFTOVER_PORT = 9
UNTOUCHED, REFUSED = "untouched", "refused"
_OF_SERVICES = {f"port {port}" for port in PORTS} | {
    f"endpoint {one}" for some in ENDPOINTS.values() for one in some
}


def port_of(target: Target | None, refuse_port: int) -> int | None:
    """Return the port of this node that a target has."""
    if isinstance(target, KernelTarget):
        return target.port
    return refuse_port if target is REFUSE else target


def in_words(outcome: Outcome) -> str:
    """Return where a packet goes, without the address of this node."""
    if outcome.kind is Kind.TO_PORT and outcome.place is not None:
        if outcome.place.port == LEFTOVER_PORT:
            # Rules of another program, which come after the product's.
            return UNTOUCHED
        return f"port {outcome.place.port}"
    if outcome.kind is Kind.TO_ENDPOINT and outcome.place is not None:
        return _to(SocketAddress(*outcome.place))
    return outcome.kind.value


def _to(endpoint: SocketAddress) -> str:
    return f"endpoint {endpoint}"


def choice_of(target: KernelTarget, client: str) -> tuple[SocketAddress, ...]:
    """Return the endpoints for a client; none: it goes to the proxy port."""
    for choice in target.choices:
        if choice.networks is None or _is_in(client, choice.networks):
            return choice.endpoints
    return ()


@functools.cache
def _is_in(ip: str, networks: tuple[str, ...]) -> bool:
    return any(ipaddress.ip_address(ip) in ipaddress.ip_network(one) for one in networks)


def expected(target: Target | None, client: Client, pinned: SocketAddress | None) -> Counter[str]:
    """Return where a client's new connections go, each with how many of all draws lead there."""
    if target is None:
        return Counter([UNTOUCHED])
    if target is REFUSE:
        return Counter([REFUSED])
    if not isinstance(target, KernelTarget):
        return Counter([f"port {target}"])
    endpoints = choice_of(target, client.ip) if target.is_on else ()
    if not endpoints:
        return Counter([f"port {target.port}"])
    if target.affinity is not None and pinned in endpoints:
        assert pinned is not None
        return Counter({_to(pinned): len(endpoints)})
    if target.by_client:
        hashed = jhash(ipaddress.ip_address(client.ip).packed, _HASH_SEED)
        return Counter({_to(endpoints[hashed * len(endpoints) >> 32]): len(endpoints)})
    return Counter(map(_to, endpoints))


def unpinned(target: Target | None, client: Client) -> Counter[str]:
    """Return where connections may go if any of a target's pins may exist."""
    if isinstance(target, KernelTarget) and target.affinity is not None and target.is_on:
        return Counter(map(_to, choice_of(target, client.ip)))
    return Counter()


def draws(target: Target | None, client: Client) -> range:
    """Return the numbers to draw so that each endpoint has its turn."""
    if isinstance(target, KernelTarget) and target.is_on:
        return range(max(len(choice_of(target, client.ip)), 1))
    return range(1)


def on_the_way(target: Target | None, client: Client) -> Iterator[str]:
    """Yield where new connections may go while this target begins, or ends."""
    yield from expected(target, client, None)
    if isinstance(target, KernelTarget):
        yield f"port {target.port}"
        if target.is_on:
            yield from map(_to, choice_of(target, client.ip))


def is_answered(entry: Entry) -> bool:
    """Return whether an entry is of a connection that is open."""
    return entry.flow.protocol == 6 and bool(entry.status & 2) and not entry.is_reset


def is_right(entry: Entry, target: Target, refuse_port: int) -> bool:
    """Return whether an entry of a steered frontend leads where its packets may go."""
    is_tcp = entry.flow.protocol == 6
    if is_answered(entry):
        return True
    if entry.leads_to.port == port_of(target, refuse_port):
        return True
    if not isinstance(target, KernelTarget) or (is_tcp and not target.is_on):
        return False
    return SocketAddress(*entry.leads_to) in choice_of(target, entry.flow.client.ip)


def led_there(entry: Entry, target: Target, refuse_port: int) -> bool:
    """Return whether an entry leads where a frontend led that is no longer steered."""
    if entry.leads_to.port == port_of(target, refuse_port):
        return True
    some = target.choices if isinstance(target, KernelTarget) else ()
    return any(SocketAddress(*entry.leads_to) in choice.endpoints for choice in some)


def must_be_gone(entry: Entry, before: Target | None, now: Target | None, refuse_port: int) -> bool:
    """Return whether an entry of a frontend must be removed once a change is complete.

    Args:
        before: Where it led last, if it is no longer steered.
    """
    is_udp = entry.flow.protocol == 17
    if now is not None:
        return not is_right(entry, now, refuse_port)
    return is_udp and before is not None and led_there(entry, before, refuse_port)


def frontend_of(entry: Entry) -> Frontend:
    """Return what a client has dialled."""
    protocol = Protocol.TCP if entry.flow.protocol == 6 else Protocol.UDP
    return Frontend(*entry.flow.dialled, protocol)


def is_of_no_service(where: str) -> bool:
    """Return whether a place, in words, isn't one that any frontend may be led to."""
    return where not in _OF_SERVICES


def place_in_words(entry: Entry) -> str:
    """Return where an entry leads, as of a first packet."""
    to = SocketAddress(*entry.leads_to)
    return _to(to) if any(to in some for some in ENDPOINTS.values()) else f"port {to.port}"


def is_odd(entry: Entry) -> bool:
    """Return whether another host has reset a connection to an address that no rule translated.

    Nothing has a frontend's address, so there are hardly any, and they are left for ten seconds.
    """
    return entry.is_reset and not entry.is_translated


def leftover(outcome: Outcome) -> bool:
    """Return whether another program's rule has redirected a packet that isn't to be steered."""
    place = outcome.place
    return place is not None and place.port == LEFTOVER_PORT


def ports_of(targets: Mapping[Frontend, Target]) -> dict[Frontend, int]:
    return {f: port_of(target, 0) or 0 for f, target in targets.items()}


def port_alone(target: Target) -> Target:
    """Return what a new run knows of a target whose endpoints aren't in the kernel."""
    return target.port if isinstance(target, KernelTarget) and not target.is_on else target


def lacks_counters(node: TableNode) -> bool:
    return bool({"set counter", "element counter"} & set(node.lacks))


def lines_of(targets: Mapping[Frontend, Target]) -> set[str]:
    """Return what a steering shows of its targets."""
    return {f"{one.protocol.value} {_shown(one)} -> {_target(t)}" for one, t in targets.items()}


def head_of(frontend: Frontend) -> str:
    """Return how the line of a frontend begins."""
    return f"{frontend.protocol.value} {_shown(frontend)} -> "


def _shown(frontend: Frontend) -> str:
    ip = f"[{frontend.ip}]" if ":" in frontend.ip else frontend.ip
    return f"{ip}:{frontend.port}"


def _target(target: Target) -> str:
    if not isinstance(target, KernelTarget):
        return "refuse" if target is REFUSE else f":{target}"
    if not target.is_on:
        return f":{target.port}"
    endpoints = sorted({str(one) for choice in target.choices for one in choice.endpoints})
    return f":{target.port}, in the kernel to {' '.join(endpoints)}"


class Shown(NamedTuple):
    """What a line shows of a frontend."""

    port: int | None
    """None: a refuse port."""
    endpoints: frozenset[str] = frozenset()


def read_line(line: str) -> Shown:
    """Return what a line of a steering shows."""
    port, _, endpoints = line.partition(" -> ")[2].partition(", in the kernel to ")
    is_refused = port == "refuse" or int(port[1:]) in REFUSE_PORTS
    return Shown(None if is_refused else int(port[1:]), frozenset(endpoints.split()))


def may_be_shown(shown: Shown, some: list[Target], *, drifted: bool) -> bool:
    """Return whether a line may be made of parts of some targets, and of what a drift has put."""
    ports = {port_of(one, 0) or None for one in some}
    targets = [one for one in some if isinstance(one, KernelTarget)]
    known = {str(e) for one in targets for choice in one.choices for e in choice.endpoints}
    if not drifted:
        return shown.port in ports and shown.endpoints <= known
    is_strange = is_of_no_service(f"port {shown.port}")
    strange = {one for one in shown.endpoints if is_of_no_service(f"endpoint {one}")}
    return (shown.port in ports or is_strange) and shown.endpoints <= known | strange


def kernel_targets(targets: Mapping[Frontend, Target]) -> list[KernelTarget]:
    """Return those that are on the kernel path."""
    return [one for one in targets.values() if isinstance(one, KernelTarget) and one.is_on]
