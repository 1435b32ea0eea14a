"""Renders the map of calls: clients, Services, endpoints.

Rule 1: nodes have counted the calls; endpoints in their plans are shown even without a call.
Rule 2: a search shows the Services that match, and the Services of matching clients and endpoints.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest

from userspace_proxy.facts import WORST_FIRST, Level, worst
from userspace_proxy.facts.units import plural
from userspace_proxy.status.markup import Parts
from userspace_proxy.status.selection import Selection, with_query

from ..endpoints import MergedEndpoint
from ..merged import MergedPort, mark_of
from ..words import format_endpoint
from .call_map import BOX, SERVICES_MAX, WIDTH, Calling, CallMap, Item, Line, place
from .client_calls import AllCalls, ClientCalls
from .look import ClusterLook, has_words, service_link
from .markup import render
from .pages import head, say_calls


def render_map(look: ClusterLook, calls: AllCalls, asked: Selection) -> Parts:
    """Return the map of the calls that match the search."""
    drawn = place(calling_of(look.merged.ports, calls, asked.q))
    counts = [sum(one.x == x for one in drawn.items) for x, _ in drawn.heads]
    shown = ", ".join(
        plural(count, noun)
        for count, noun in zip(counts, ("client", "Service", "endpoint"), strict=True)
    )
    return render(
        "map",
        head(look, asked, "Map"),
        map=drawn,
        shown=shown,
        width=WIDTH,
        box=BOX,
        left_out=[*_left_out(drawn), say_calls(calls, look.merged)],
    )


def calling_of(ports: Iterable[MergedPort], calls: AllCalls, q: str) -> Calling:
    """Return the clients, Services and endpoints that the map may show."""
    of_service: dict[str, list[MergedPort]] = {}
    for port in ports:
        of_service.setdefault(port.key.of_service, []).append(port)
    called: dict[str, list[ClientCalls]] = {}
    for call in calls.calls:
        called.setdefault(call.service, []).append(call)
    # Include Services that were called but aren't listed: they may have been removed since, or be
    # served and omitted in a summary.
    names = dict.fromkeys((*of_service, *called))
    wanted = [
        name
        for name in names
        if not q or has_words(q, _texts(name, of_service.get(name, ()), called.get(name, ())))
    ]
    services = [_service(name, of_service.get(name, ()), called.get(name, ())) for name in wanted]
    services.sort(key=lambda found: found[0])
    shown = [item.name for _, item in services[:SERVICES_MAX]]
    calling = [_calls(name, of_service.get(name, ()), called.get(name, ())) for name in shown]
    endpoints: dict[str, Item] = {}
    serving: list[list[Line]] = []
    for name in shown:
        lines = []
        for endpoint in (one for port in of_service.get(name, ()) for one in port.endpoints):
            line = _serves(name, endpoint)
            known = endpoints.get(endpoint.address)
            if known is None or _is_worse(line.level, known.level):
                endpoints[endpoint.address] = _endpoint(endpoint, line.level)
            lines.append(line)
        serving.append(_merged(lines))
    # The busiest client and first endpoint of each Service precede second clients and endpoints.
    clients = dict.fromkeys(line.start for line in _in_turn(calling))
    ends = dict.fromkeys(line.end for line in _in_turn(serving))
    return Calling(
        [Item(name, with_query("/connections", {"q": name})) for name in clients],
        [item for _, item in services],
        [endpoints[name] for name in ends],
        [line for lines in calling for line in lines],
        [line for lines in serving for line in lines],
    )


def _in_turn(lines: Iterable[Sequence[Line]]) -> Iterator[Line]:
    """Yield the first line of each list, then the second of each."""
    return (line for turn in zip_longest(*lines) for line in turn if line is not None)


def _texts(name: str, ports: Iterable[MergedPort], calls: Iterable[ClientCalls]) -> Iterator[str]:
    yield name
    for port in ports:
        yield port.key.name
        # Read one node's endpoints, because merging all nodes' facts about each endpoint is slow.
        for endpoint in port.first.endpoints:
            yield endpoint.address
            yield endpoint.node
    for call in calls:
        yield call.client
        yield from call.addresses


def _service(
    name: str, ports: Iterable[MergedPort], calls: Iterable[ClientCalls]
) -> tuple[tuple[int, int, str], Item]:
    """Return a Service with its sort key: Services with problems first, then the most called."""
    ports = [*ports]
    level = worst(port.level for port in ports)
    count = sum(call.connections for call in calls)
    key = WORST_FIRST.index(level), -count, name
    return key, Item(name, service_link(name), mark_of(ports), plural(count, "connection"))


def _calls(service: str, ports: Iterable[MergedPort], calls: Iterable[ClientCalls]) -> list[Line]:
    facts = [one for port in ports for one in port.members.values()]
    is_answered = not all(one.is_without_answer for one in facts) or not facts
    counts, failed = Counter[str](), Counter[str]()
    for call in calls:
        counts[call.client] += call.connections
        failed[call.client] += call.failed
    # A line is OK or unknown, never bad: connections of a protocol without answers (syslog) count
    # as failed, and failures of any age are included.
    return [
        Line(
            client,
            service,
            count,
            Level.OK if is_answered and 2 * failed[client] < count else None,
            f"{plural(count, 'connection')}, {failed[client]:,} failed",
        )
        for client, count in counts.items()
    ]


def _serves(service: str, endpoint: MergedEndpoint) -> Line:
    sums = endpoint.sums
    title = f"{plural(sums.connections, 'connection')}, {sums.failed:,} failed dials and clients"
    return Line(service, endpoint.address, sums.connections, endpoint.level, title)


def _endpoint(endpoint: MergedEndpoint, level: Level | None) -> Item:
    link = f"/?q=endpoint:{endpoint.address}"
    return Item(endpoint.address, link, level, format_endpoint(endpoint))


def _merged(lines: Iterable[Line]) -> list[Line]:
    """Return the lines; of several lines with equal ends, keep only the worst."""
    found: dict[tuple[str, str], Line] = {}
    for line in lines:
        key = line.start, line.end
        known = found.get(key)
        if known is None or _is_worse(line.level, known.level):
            found[key] = line
    return list(found.values())


def _is_worse(level: Level | None, than: Level | None) -> bool:
    order = (*WORST_FIRST, None)
    return order.index(level) < order.index(than)


def _left_out(drawn: CallMap) -> Iterator[str]:
    for what, count in drawn.left_out.items():
        yield f"{plural(count, f'more {what}')}: a search shows them."
