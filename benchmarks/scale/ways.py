"""The measured agents, by steering mode and source of Services."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

FROM_API = ("start", "memory", "endpoint", "none_some", "new_service", "connection", "churn")


@dataclass(frozen=True, slots=True)
class Way:
    """One measured agent.

    Args:
        key: Its name on the command line.
        label: Its name on the page.
        steering: The value of ``--steering``.
        form: The form of its manifests, ``yaml`` or ``json``; empty to use the API server.
        rows: The rows to measure, in this order.
        has_ranges: Whether each Service has a range of ports.
    """

    key: str
    label: str
    steering: str
    form: str
    rows: Sequence[str]
    has_ranges: bool = False


WAYS = {
    way.key: way
    for way in (
        Way("api-nftables", "API server, nftables", "nftables", "", FROM_API),
        Way("api-iptables", "API server, iptables", "iptables", "", FROM_API),
        Way("api-local", "API server, local", "local", "", FROM_API),
        Way("json-nftables", "manifests (JSON), nftables", "nftables", "json", ("start", "memory")),
        Way(
            "yaml-nftables",
            "manifests (YAML), nftables",
            "nftables",
            "yaml",
            ("start", "memory", "edit"),
        ),
        Way(
            "yaml-ranges",
            "the same, with ranges of ports",
            "nftables",
            "yaml",
            ("start", "memory", "edit"),
            has_ranges=True,
        ),
        Way("yaml-iptables", "manifests (YAML), iptables", "iptables", "yaml", ("start", "memory")),
        Way("yaml-local", "manifests (YAML), local", "local", "yaml", ("start", "memory")),
    )
}
