"""Counts what the kernel carries without the proxy, on request: ``/api/v1/kernel-path``.

Rule 1: connection tracking is listed when it is asked for, never each second: a busy node has
200,000 entries, which take about half a second in a thread.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

from ..kernel.conntrack import PROTOCOL_NUMBERS, count_by_endpoint
from ..kernel.ctnetlink import pack_address
from ..model import Path
from .view import ServicePortView, StatusView

Counts = Mapping[tuple[bytes, bytes], int]
"""Entries by what was dialled, and by the endpoint that replies."""


def render_tracked(
    view: StatusView, count: Callable[[int, int], Counts] = count_by_endpoint
) -> bytes:
    """Return the tracked connections of Service ports on the kernel path, as JSON.

    Blocks: call it in a thread.

    Args:
        count: Returns the entries of an IP version and a protocol.

    Raises:
        SteeringError: The kernel doesn't list them.
    """
    ports = [port for port in view.ports if port.path.now is Path.KERNEL]
    kinds = {(port.plan.key.family, port.plan.protocol) for port in ports}
    counts = {kind: count(kind[0], PROTOCOL_NUMBERS[kind[1]]) for kind in kinds}
    rows = [_row(port, counts[port.plan.key.family, port.plan.protocol]) for port in ports]
    return json.dumps({"ports": rows}).encode() + b"\n"


def _row(port: ServicePortView, counts: Counts) -> dict[str, object]:
    key = port.plan.key
    dialled = [pack_address(f.ip, f.port) for f in port.plan.frontends]
    return {
        "namespace": key.name.namespace,
        "service": key.name.name,
        "port": key.name.port,
        "family": str(key.family),
        "protocol": port.plan.protocol,
        "side": key.side,
        "endpoints": [
            {
                "address": str(endpoint),
                "tracked": sum(counts.get((one, pack_address(*endpoint)), 0) for one in dialled),
            }
            for endpoint in (endpoint.verdict.address for endpoint in port.endpoints)
        ],
    }
