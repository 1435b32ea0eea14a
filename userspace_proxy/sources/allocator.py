"""Allocates what manifests leave out, as the API server's allocators would.

    written Services ──▶ cluster IPs of each family ──▶ node ports ──▶ Services, conflicts
                              ▲        AllocationFile        ▲
                              └─────────── restart ──────────┘

Rule 1: what manifests name comes first, whoever it was given to.
Rule 2: what was given is kept: while the program runs in memory, over a restart in the file;
without one a name's hash gives the same again, unless two names meet on one seat.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..model import IPFamily, Service, ServiceKey
from .allocation import open_ranges
from .allocation_file import AllocationFile, Given
from .node_ports import NodePorts
from .written import WrittenService


@dataclass(frozen=True, slots=True)
class Allocated:
    """Services as the API server would show them."""

    services: tuple[Service, ...]
    problems: tuple[str, ...]
    """What is asked for and can't be given, one line each, with the place."""


class Allocator:
    """Cluster IPs and node ports for the Services of manifests; one thread at a time.

    Args:
        service_cidrs: One range, or two of different families; the first one's family is
            that of Services that ask for none.
        state_file: Where to keep what was given; None: nowhere.

    Raises:
        ConfigError: The ranges aren't such.
    """

    def __init__(self, service_cidrs: Sequence[str], state_file: Path | None = None) -> None:
        self._ranges = open_ranges(service_cidrs)
        self._node_ports = NodePorts()
        self._file = AllocationFile(state_file) if state_file else None
        self._is_loaded = False

    def allocate(self, services: Iterable[tuple[WrittenService, str]]) -> Allocated:
        """Give what is to be given, and write it down.

        Args:
            services: All of them, each with its place in the manifests; in their order.
        """
        self._load()
        items = list(services)
        places = {written.service.key: place for written, place in items}
        with_ips, problems = self._with_cluster_ips([written for written, _ in items])
        settled, conflicts = self._node_ports.allocate(with_ips)
        problems.extend((conflict.service, conflict.problem) for conflict in conflicts)
        lines = [f"{places[key]}: {problem}" for key, problem in problems]
        if line := self._save():
            lines.append(line)
        return Allocated(tuple(settled), tuple(lines))

    def _with_cluster_ips(
        self, services: list[WrittenService]
    ) -> tuple[list[WrittenService], list[tuple[ServiceKey, str]]]:
        problems: list[tuple[ServiceKey, str]] = []
        wanted = [written.wanted_families(self._ranges.keys()) for written in services]
        given = {family: self._of_family(family, services, wanted, problems) for family in IPFamily}
        settled = []
        for written, families in zip(services, wanted, strict=True):
            service = written.service
            ips = {IPFamily.of(ip): ip for ip in service.cluster_ips}
            key = str(service.key)
            found = (ips.get(family) or given[family].get(key) for family in families)
            cluster_ips = tuple(ip for ip in found if ip)
            if cluster_ips != service.cluster_ips:
                written = replace(written, service=replace(service, cluster_ips=cluster_ips))
            settled.append(written)
        return settled, problems

    def _of_family(
        self,
        family: IPFamily,
        services: list[WrittenService],
        wanted: list[tuple[IPFamily, ...]],
        problems: list[tuple[ServiceKey, str]],
    ) -> Mapping[str, str]:
        """Return the addresses of one family for Services that name none of it."""
        named = {
            w.service.key: ip
            for w in services
            for ip in w.service.cluster_ips
            if IPFamily.of(ip) is family
        }
        wanting = [
            w.service.key
            for w, families in zip(services, wanted, strict=True)
            if family in families and w.service.key not in named
        ]
        cluster_ips = self._ranges.get(family)
        if cluster_ips is None:
            problem = f"spec.ipFamilies: --service-cluster-ip-range has no {family} addresses"
            problems.extend((key, problem) for key in wanting)
            return {}
        given = cluster_ips.allocate(map(str, wanting), taken=set(named.values()))
        problem = f"spec.clusterIP: no address is left in {cluster_ips.cidr}"
        problems.extend((key, problem) for key in wanting if str(key) not in given)
        return given

    def _load(self) -> None:
        if self._file is None or self._is_loaded:
            return
        self._is_loaded = True
        given = self._file.load()
        for family, cluster_ips in self._ranges.items():
            cluster_ips.remember(given.cluster_ips.get(str(family), {}))
        self._node_ports.remember(given.node_ports, given.contested)

    def _save(self) -> str:
        if self._file is None:
            return ""
        cluster_ips = {str(family): ips.given for family, ips in self._ranges.items()}
        return self._file.save(
            Given(cluster_ips, self._node_ports.given, self._node_ports.contested)
        )
