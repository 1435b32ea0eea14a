"""Judges only the endpoints of a Service port that changed in its slices.

old verdicts ──▶ without endpoints that left or changed ──▶ with new verdicts

Rule 1: the result equals the result of :func:`.usable_endpoints`, or is None if all endpoints must
be judged: hints, priorities and policies make endpoints depend on each other.
Rule 2: an unchanged endpoint costs at most one look-up.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence, Set

from ..model import Endpoint, EndpointSlice, SlicePort, SocketAddress, pack_ip
from ..model.serving import Serving
from .endpoint_index import EndpointIndex, PortName
from .preferences import have_preferences
from .usable import ENDPOINTS_MAX, EndpointVerdict, Refusals, Usable, judge_alone

# If a larger share of the endpoints has changed, judging all of them is as fast.
_SHARE = 0.25
# The maximum number of endpoints that are examined to prove that hints don't decide.
_TRIES = 100

_Listed = Sequence[tuple[SlicePort, EndpointSlice]]


def usable_after(
    before: Sequence[EndpointVerdict],
    had: EndpointIndex,
    has: EndpointIndex,
    port: PortName,
    refusals: Refusals,
    doubtful_ips: Set[str] = frozenset(),
) -> Usable | None:
    """Judge the endpoints that changed; return None if all endpoints must be judged.

    Args:
        before: The verdicts on all endpoints of ``had``, for the scope ``Cluster``.
        had: The Service's slices before the change.
        has: The Service's slices now. Equal endpoints are the same objects.
        doubtful_ips: IPs at which endpoints may now be refused, or no longer refused.
    """
    if max(had.count(*port), has.count(*port)) > ENDPOINTS_MAX:
        return None
    old, new = tuple(had.found(*port)), tuple(has.found(*port))
    kept = {id(item) for _, item in old} & {id(item) for _, item in new}
    if doubtful_ips:
        kept -= {id(i) for _, i in new if not doubtful_ips.isdisjoint([e.ip for e in i.endpoints])}
    left, came = (dict(_addresses(one, kept)) for one in (old, new))
    changed = {
        at: endpoint
        for at, endpoint in came.items()
        if left.get(at) is not endpoint or at.ip in doubtful_ips
    }
    affected = changed.keys() | (left.keys() - came.keys())
    unchanged = [(number, item) for number, item in new if id(item) in kept]
    is_listed_twice = len(came) < sum(len(i.endpoints) for _, i in new if id(i) not in kept)
    if len(affected) > _SHARE * len(before) or is_listed_twice or _are_listed(affected, unchanged):
        return None
    if not _is_plain(before, unchanged) or have_preferences((*before, *changed.values())):
        return None
    verdicts = list(before)
    for address in affected:
        _replace(verdicts, address, changed.get(address), refusals, port)
    chosen = tuple([verdict.address for verdict in verdicts if verdict.is_usable])
    return Usable(tuple(verdicts), Serving(chosen))


def _addresses(listed: _Listed, without: Set[int]) -> Iterator[tuple[SocketAddress, Endpoint]]:
    """Yield the endpoints of slices, except slices with these object IDs."""
    for port, item in listed:
        if id(item) not in without:
            for endpoint in item.endpoints:
                yield SocketAddress(endpoint.ip, port.port), endpoint


def _are_listed(affected: Iterable[SocketAddress], unchanged: _Listed) -> bool:
    """Return whether an unchanged slice also lists an affected endpoint: the better copy counts."""
    ips = {address.ip for address in affected}
    return not all(ips.isdisjoint([e.ip for e in item.endpoints]) for _, item in unchanged)


def _is_plain(before: Sequence[EndpointVerdict], unchanged: _Listed) -> bool:
    """Return whether an unchanged endpoint proves that ready endpoints are used without hints."""
    endpoints = _addresses(unchanged, frozenset())
    for address, endpoint in itertools.islice(endpoints, _TRIES):
        if endpoint.ready and not (endpoint.hinted_nodes or endpoint.hinted_zones):
            at, is_there = _find(before, address)
            if is_there and before[at].is_usable:
                return True
    return False


def _replace(
    verdicts: list[EndpointVerdict],
    address: SocketAddress,
    endpoint: Endpoint | None,
    refusals: Refusals,
    port: PortName,
) -> None:
    """Insert or replace the verdict on an endpoint; None removes it."""
    at, is_there = _find(verdicts, address)
    new = () if endpoint is None else (judge_alone(address, endpoint, refusals, port.protocol),)
    verdicts[at : at + is_there] = new


def _find(verdicts: Sequence[EndpointVerdict], address: SocketAddress) -> tuple[int, bool]:
    """Return the index of an endpoint's verdict, or where to insert it, and whether it exists."""
    place = pack_ip(address.ip), address.port
    at = bisect_left(verdicts, place, key=lambda v: (pack_ip(v.address.ip), v.address.port))
    return at, at < len(verdicts) and verdicts[at].address == address
