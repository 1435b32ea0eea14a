"""Answers questions about names of Services from one snapshot.

    question ──▶ targets: addresses, ports and names ──▶ records of the type ──▶ DnsAnswer

Rule 1: for the same Services, an answer contains the records of CoreDNS' answer.
Rule 2: a namespace exists if a Service is in it, because a snapshot contains no namespaces.

Source: Kubernetes' DNS specification 1.1.0, and CoreDNS 1.15: plugin/kubernetes with ``pods
insecure``, and plugin/backend_lookup.go.
"""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from ..cluster import ServiceState, Snapshot
from ..model import Frontend, Protocol, Service, ServiceType, SocketAddress
from .question import Question, hostname_of, parse_question, pod_address
from .records import Code, DnsAnswer, Record, RecordType
from .reverse import REVERSE_ZONES, address_of

CLUSTER_DOMAIN = "cluster.local"
"""kubeadm's default."""
TTL_S = 5
"""CoreDNS' default."""

_VERSION = "1.1.0"
_VERSION_TTL_S = 28800
_CNAMES_MAX = 10

Reach = Callable[[Frontend], SocketAddress]
"""Returns the address at which a frontend of a cluster IP answers."""


@dataclass(frozen=True, slots=True)
class _Target:
    """What a name stands for: an address or another name, and a port."""

    owner: str
    """The name that SRV records point to."""
    host: str
    """An address, or the name that a Service of type ExternalName has."""
    port: int | None = 0
    """None: the endpoint's slice has no port."""
    is_name: bool = False


class ServiceNames:
    """The names of the Services of one snapshot.

    Args:
        domain: The cluster's domain.
        reach: Where cluster IPs answer, if not at themselves.
    """

    def __init__(
        self, snapshot: Snapshot, domain: str = CLUSTER_DOMAIN, reach: Reach | None = None
    ) -> None:
        self._snapshot = snapshot
        self._zone = f"{domain.strip('.').lower()}."
        self._reach = reach

    def answer(self, name: str, type_: str) -> DnsAnswer:
        """Return the answer to a question.

        Args:
            name: Absolute, with a dot at its end; records repeat it as it is.
            type_: ``A``, ``SRV`` and so on; a name has no records of types that aren't known.
        """
        lowered = name.lower()
        zone = next((z for z in (self._zone, *REVERSE_ZONES) if _is_below(lowered, z)), None)
        if zone is None:
            return DnsAnswer(Code.REFUSED, is_authoritative=False)
        found = self._found(name, zone, type_)
        if found is None:
            return DnsAnswer(Code.NXDOMAIN, authority=(self._soa(zone),))
        return found if found.records else DnsAnswer(Code.NOERROR, authority=(self._soa(zone),))

    def _found(self, name: str, zone: str, type_: str) -> DnsAnswer | None:
        """Return the answer for a name that exists, else None."""
        lowered = name.lower()
        match type_:
            case RecordType.SOA:
                return DnsAnswer(Code.NOERROR, (self._soa(zone),) if lowered == zone else ())
            case RecordType.PTR if address := address_of(lowered):
                owners = self._by_address.get(address)
                pointers = (Record(name, RecordType.PTR, to, TTL_S) for to in owners or ())
                return DnsAnswer(Code.NOERROR, tuple(pointers)) if owners else None
        if type_ == RecordType.TXT and lowered == f"dns-version.{zone}":
            version = Record(name, RecordType.TXT, f'"{_VERSION}"', _VERSION_TTL_S)
            return DnsAnswer(Code.NOERROR, (version,))
        targets = self._targets(lowered, zone)
        if targets is None:
            return None
        match type_:
            case RecordType.A | RecordType.AAAA:
                return self._addresses(name, RecordType(type_), targets)
            case RecordType.SRV:
                return self._srv(name, [t for t in targets if not t.is_name])
            case RecordType.CNAME:
                names = [t for t in targets[:1] if t.is_name]
                return DnsAnswer(Code.NOERROR, tuple(_cname(name, t) for t in names))
            case RecordType.TXT if not targets:
                # CoreDNS returns NXDOMAIN here even for a domain that contains names.
                return None
        return DnsAnswer(Code.NOERROR)

    def _targets(self, name: str, zone: str) -> Sequence[_Target] | None:
        """Return what a name stands for; empty: only other names are below it; None: nothing."""
        if name == f"ns.dns.{zone}":
            return ()
        question = parse_question(name.removesuffix(zone).removesuffix("."))
        if question is None or (zone != self._zone and name != zone):
            return None
        if not question.kind:
            return ()
        state = self._snapshot.services.get(question.key)
        if state is not None and question.kind == "svc":
            return self._targets_of(state, question)
        if question.namespace not in self._namespaces:
            return None
        if not question.name:
            return ()
        address = pod_address(question.name) if question.kind == "pod" else None
        if address is None:
            return None
        owner = f"{question.name}.{question.namespace}.pod.{self._zone}"
        return (_Target(owner, address),)

    def _targets_of(self, state: ServiceState, question: Question) -> Sequence[_Target] | None:
        service = state.service
        if service.type is ServiceType.EXTERNAL_NAME:
            is_plain = not (question.endpoint or question.port or question.protocol)
            if not is_plain or _is_address(service.external_name):
                return None
            return (_Target(self._name_of(service), f"{service.external_name}.", is_name=True),)
        if service.is_headless or question.endpoint:
            return tuple(self._endpoints(state, question)) or None
        ports = [port for port in service.ports if _matches(question, port.name, port.protocol)]
        if not ports:
            return None
        owner = self._name_of(service)
        return [
            _Target(owner, *self._reached(ip, port.port, port.protocol))
            for port in ports
            for ip in service.cluster_ips
        ]

    def _endpoints(self, state: ServiceState, question: Question) -> Iterator[_Target]:
        service_name = self._name_of(state.service)
        for item in state.slices:
            ports = [
                port.port for port in item.ports if _matches(question, port.name, port.protocol)
            ]
            # A slice without ports has addresses, but nothing that an SRV record could name.
            numbers = ports if item.ports or question.port or question.protocol else [None]
            for endpoint in item.endpoints:
                label = hostname_of(endpoint.ip, endpoint.hostname)
                if not endpoint.ready or question.endpoint not in ("", label.lower()):
                    continue
                for number in numbers:
                    yield _Target(f"{label}.{service_name}", endpoint.ip, number)

    def _addresses(
        self,
        name: str,
        type_: RecordType,
        targets: Sequence[_Target],
        followed: frozenset[str] = frozenset(),
    ) -> DnsAnswer:
        records: dict[str, Record] = {}
        for target in targets:
            if target.is_name:
                return self._follow(name, type_, target, followed | {name.lower()})
            if (":" in target.host) is (type_ is RecordType.AAAA):
                records.setdefault(target.host, Record(name, type_, target.host, TTL_S))
        return DnsAnswer(Code.NOERROR, tuple(records.values()))

    def _follow(
        self, name: str, type_: RecordType, target: _Target, followed: frozenset[str]
    ) -> DnsAnswer:
        """Return a CNAME with the addresses of its target; without them if it is elsewhere."""
        cname = _cname(name, target)
        host = target.host.lower()
        if not _is_below(host, self._zone):
            return DnsAnswer(Code.NOERROR, (cname,), elsewhere=target.host)
        if host in followed or len(followed) > _CNAMES_MAX:
            return DnsAnswer(Code.NOERROR)
        targets = self._targets(host, self._zone) or ()
        found = self._addresses(target.host, type_, targets, followed)
        records = (cname, *found.records) if found.records else ()
        return DnsAnswer(Code.NOERROR, records, elsewhere=found.elsewhere)

    def _srv(self, name: str, targets: Sequence[_Target]) -> DnsAnswer:
        records: dict[tuple[str, int], Record] = {}
        additional: dict[tuple[str, str], Record] = {}
        # All targets are of one priority and of equal weight.
        weight = max(1, 100 // len(targets)) if targets else 0
        for target in targets:
            if target.port is None:
                continue
            to = target.owner
            data = f"0 {weight} {target.port} {to}"
            records.setdefault((to, target.port), Record(name, RecordType.SRV, data, TTL_S))
            type_ = RecordType.AAAA if ":" in target.host else RecordType.A
            additional.setdefault((to, target.host), Record(to, type_, target.host, TTL_S))
        return DnsAnswer(
            Code.NOERROR, tuple(records.values()), additional=tuple(additional.values())
        )

    def _soa(self, zone: str) -> Record:
        serial = self._snapshot.revision & 0xFFFFFFFF
        data = f"ns.dns.{zone} hostmaster.{zone} {serial} 7200 1800 86400 {TTL_S}"
        return Record(zone, RecordType.SOA, data, TTL_S)

    def _name_of(self, service: Service) -> str:
        return f"{service.key.name}.{service.key.namespace}.svc.{self._zone}"

    def _reached(self, ip: str, port: int, protocol: str) -> tuple[str, int]:
        if self._reach is None or protocol not in Protocol.__members__:
            return ip, port
        return self._reach(Frontend(ip, port, Protocol(protocol)))

    @functools.cached_property
    def _namespaces(self) -> frozenset[str]:
        return frozenset(key.namespace for key in self._snapshot.services)

    @functools.cached_property
    def _by_address(self) -> dict[str, tuple[str, ...]]:
        """The names of each address: that of a Service, or else those of endpoints."""
        endpoints: dict[str, dict[str, None]] = {}
        services: dict[str, tuple[str, ...]] = {}
        for state in self._snapshot.services.values():
            name = self._name_of(state.service)
            services.update(dict.fromkeys(state.service.cluster_ips, (name,)))
            for item in state.slices:
                for endpoint in item.endpoints:
                    if endpoint.ready:
                        label = hostname_of(endpoint.ip, endpoint.hostname)
                        endpoints.setdefault(endpoint.ip, {})[f"{label}.{name}"] = None
        return {ip: tuple(names) for ip, names in endpoints.items()} | services


def _cname(name: str, target: _Target) -> Record:
    return Record(name, RecordType.CNAME, target.host, TTL_S)


def _matches(question: Question, name: str, protocol: str) -> bool:
    return question.port in ("", name.lower()) and question.protocol in ("", protocol.lower())


def _is_below(name: str, zone: str) -> bool:
    return name == zone or name.endswith(f".{zone}")


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
