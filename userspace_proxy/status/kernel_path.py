"""Counts the connections on the kernel path, for ``/api/v1/kernel-path``.

Rule 1: conntrack entries are listed only on request, because the 200,000 entries of a busy node
take about half a second, in a thread.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence

from ..facts import PortFacts, StatusFacts
from ..kernel.conntrack import PROTOCOL_NUMBERS, Leg, Tracked, count_by_endpoint
from ..kernel.ctnetlink import NO_VOLUME, Volume, pack_address
from ..model import DataPath, SocketAddress
from ..model.port_ranges import DialledRange

NOT_COUNTED = "bytes aren't counted while net.netfilter.nf_conntrack_acct is 0"


def render_tracked(
    view: StatusFacts, count: Callable[[int, int], Tracked] = count_by_endpoint
) -> bytes:
    """Return the tracked connections of Service ports on the kernel path, as JSON.

    It blocks: call it in a thread.

    Args:
        count: Returns the entries for an IP version and a protocol.

    Raises:
        SteeringError: The kernel doesn't list the entries.
    """
    ports = [port for port in view.ports if port.path is DataPath.KERNEL]
    kinds = {(port.plan.key.family, port.plan.protocol) for port in ports}
    counts = {kind: count(kind[0], PROTOCOL_NUMBERS[kind[1]]) for kind in kinds}
    rows = [_row(port, counts[port.plan.key.family, port.plan.protocol]) for port in ports]
    note = NOT_COUNTED if any(found.volumes is None for found in counts.values()) else ""
    return json.dumps({"note": note, "ports": rows}).encode() + b"\n"


def _row(port: PortFacts, tracked: Tracked) -> dict[str, object]:
    key = port.plan.key
    dialled = [pack_address(f.ip, f.port) for f in port.plan.frontends if not f.last]
    within = legs_of_ranges(port.plan.serving.ranges, tracked)
    return {
        "namespace": key.name.namespace,
        "service": key.name.name,
        "port": key.name.port,
        "family": str(key.family),
        "protocol": port.plan.protocol,
        "side": key.side,
        "endpoints": [
            _endpoint(verdict.address, dialled, within, tracked) for verdict in port.plan.verdicts
        ],
    }


def legs_of_ranges(ranges: Iterable[DialledRange], tracked: Tracked) -> dict[bytes, list[Leg]]:
    """Return the legs whose dialled port is in a range, by the endpoint's packed listed address."""
    found: dict[bytes, list[Leg]] = {}
    for one in ranges:
        ip = pack_address(one.ip, 0)[:-2]
        for dialled, endpoint in tracked.entries:
            offset = int.from_bytes(dialled[-2:], "big") - one.number
            # The Service port's own number isn't in the range: it has a separate frontend.
            if dialled[:-2] == ip and offset and one.first <= one.number + offset <= one.last:
                port = (int.from_bytes(endpoint[-2:], "big") - offset) % (1 << 16)
                listed = endpoint[:-2] + port.to_bytes(2, "big")
                found.setdefault(listed, []).append((dialled, endpoint))
    return found


def _endpoint(
    address: SocketAddress,
    dialled: Iterable[bytes],
    within: Mapping[bytes, Sequence[Leg]],
    tracked: Tracked,
) -> dict[str, object]:
    """Return an endpoint's entries and bytes; bytes are null if the kernel doesn't count them."""
    endpoint = pack_address(*address)
    legs = [*((one, endpoint) for one in dialled), *within.get(endpoint, ())]
    counted: Mapping[str, int | None] = dict.fromkeys(Volume._fields)
    if (volumes := tracked.volumes) is not None:
        parts = (volumes.get(leg, NO_VOLUME) for leg in legs)
        counted = functools.reduce(Volume.plus, parts, NO_VOLUME)._asdict()
    entries = sum(tracked.entries.get(leg, 0) for leg in legs)
    return {"address": str(address), "tracked": entries, **counted}
