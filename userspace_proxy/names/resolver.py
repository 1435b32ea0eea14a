"""Answers DNS questions about names of Services from one snapshot.

    question ──▶ targets: addresses, ports and names ──▶ some or all ──▶ records ──▶ DnsAnswer

Rule 1: for the same Services, an answer contains the same records as CoreDNS's.
Rule 2: a namespace exists if it contains a Service, as a snapshot has no Namespace objects.
Rule 3: the cost of a question depends on the number of records picked, not on all records.

Source: Kubernetes' DNS specification 1.1.0, and CoreDNS 1.15: plugin/kubernetes with ``pods
insecure``, and plugin/backend_lookup.go.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from functools import partial

from ..cluster import Snapshot
from ..model import Service, ServiceKey, ServiceType
from ..model.addresses import is_ip
from .endpoints import NamedEndpoints
from .index import NameIndex
from .question import REVERSE_ZONES, Question, address_of, parse_question, pod_address
from .records import Code, DnsAnswer, Record, RecordType
from .targets import (
    Alias,
    DialledAddress,
    EachTargets,
    EndpointTargets,
    Pick,
    PortTargets,
    Targets,
    pod_target,
)

CLUSTER_DOMAIN = "cluster.local"
"""The cluster domain that kubeadm uses by default."""
TTL_S = 5
"""The TTL of records in seconds; CoreDNS's default."""

_VERSION = "1.1.0"
_VERSION_TTL_S = 28800
_CNAMES_MAX = 10


class ServiceNames:
    """The names of the Services of one snapshot.

    Args:
        domain: The cluster's domain.
        dialled_address: Returns the address at which a cluster IP answers; None for that IP itself.
        index: An index shared with other snapshots; None to create one.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        domain: str = CLUSTER_DOMAIN,
        dialled_address: DialledAddress | None = None,
        index: NameIndex | None = None,
    ) -> None:
        self._snapshot = snapshot
        self._zone = f"{domain.strip('.').lower()}."
        self._dialled_address = dialled_address
        self._index = index or NameIndex()

    def answer(self, name: str, type_: str, pick: Pick = range) -> DnsAnswer:
        """Return the answer to a question.

        Args:
            name: The absolute name, with a trailing dot; records repeat it unchanged.
            type_: A type, such as ``A`` or ``SRV``; names have no records of unknown types.
            pick: Chooses records if there are more than the caller can use.
        """
        lowered = name.lower()
        zone = next((z for z in (self._zone, *REVERSE_ZONES) if _is_below(lowered, z)), None)
        if zone is None:
            return DnsAnswer(Code.REFUSED, is_authoritative=False)
        found = self._found(name, zone, type_, pick)
        if found is None:
            return DnsAnswer(Code.NXDOMAIN, authority=(self._soa(zone),))
        return found if found.records else DnsAnswer(Code.NOERROR, authority=(self._soa(zone),))

    def preparation(self, name: str, type_: str) -> Callable[[], None] | None:
        """Return the slow work to do in a thread before :meth:`answer`; None if there is none."""
        name, snapshot = name.lower(), self._snapshot
        if type_ == RecordType.PTR and address_of(name):
            is_ready = self._index.has_addresses(snapshot)
            return None if is_ready else partial(self._index.prepare, snapshot)
        question = parse_question(name.removesuffix(self._zone).removesuffix("."))
        if question is None or question.kind != "svc":
            return None
        index = self._index.of_service(snapshot, question.key)
        if index is None or not (question.endpoint or index.state.service.is_headless):
            return None
        asked = question.port, question.protocol
        if index.is_ready(*asked, question.endpoint):
            return None
        return partial(self._index.prepare, snapshot, question.key, *asked)

    def _found(self, name: str, zone: str, type_: str, pick: Pick) -> DnsAnswer | None:
        lowered = name.lower()
        match type_:
            case RecordType.SOA:
                return DnsAnswer(Code.NOERROR, (self._soa(zone),) if lowered == zone else ())
            case RecordType.PTR if address := address_of(lowered):
                return self._pointers(name, address, pick)
        if type_ == RecordType.TXT and lowered == f"dns-version.{zone}":
            version = Record(name, RecordType.TXT, f'"{_VERSION}"', _VERSION_TTL_S)
            return DnsAnswer(Code.NOERROR, (version,))
        targets = self._targets(lowered, zone)
        if targets is None:
            return None
        match type_:
            case RecordType.A | RecordType.AAAA:
                return self._addresses(name, RecordType(type_), targets, pick)
            case RecordType.SRV:
                return self._srv(name, targets, pick)
            case RecordType.CNAME if targets.alias:
                return DnsAnswer(Code.NOERROR, (_cname(name, targets.alias),))
            case RecordType.TXT if not targets.alias and not len(targets):
                # CoreDNS returns NXDOMAIN here even for a domain that contains names.
                return None
        return DnsAnswer(Code.NOERROR)

    def _targets(self, name: str, zone: str) -> Targets | None:
        """Return a name's targets; empty if only names below it exist, None if it doesn't exist."""
        if name == f"ns.dns.{zone}":
            return Targets()
        question = parse_question(name.removesuffix(zone).removesuffix("."))
        if question is None or (zone != self._zone and name != zone):
            return None
        if not question.kind:
            return Targets()
        if question.kind == "svc":
            index = self._index.of_service(self._snapshot, question.key)
            if index is not None:
                return self._targets_of(index, question)
        if not self._index.has_namespace(self._snapshot, question.namespace):
            return None
        if not question.name:
            return Targets()
        is_pod = question.kind == "pod" and self._endpoints_answer
        address = pod_address(question.name) if is_pod else None
        if address is None:
            return None
        return pod_target(f"{question.name}.{question.namespace}.pod.{self._zone}", address)

    @property
    def _endpoints_answer(self) -> bool:
        """Whether clients reach pods at the pods' own addresses; equal for all Services."""
        state = next(iter(self._snapshot.services.values()), None)
        return state is None or state.service.of_endpoints is None

    def _part(self, service: Service, key: ServiceKey, asked: tuple[str, str]) -> Targets | None:
        """Return the targets of ``key`` if it is a ready endpoint of ``service``, else None."""
        index = self._index.of_service(self._snapshot, key)
        if key not in (service.of_endpoints or ()) or not index or not len(index.endpoints(*asked)):
            return None
        return self._ports_of(index, asked)

    def _ports_of(self, index: NamedEndpoints, asked: tuple[str, str]) -> Targets | None:
        service = index.state.service
        ports = index.ports(*asked)
        if not ports:
            return None
        by_number = index.ports_by_number(*asked)
        owner = self._name_of(service)
        return PortTargets(owner, by_number, len(ports), service.cluster_ips, self._dialled_address)

    def _targets_of(self, index: NamedEndpoints, question: Question) -> Targets | None:
        service = index.state.service
        owner = self._name_of(service)
        asked = question.port, question.protocol
        targets: Targets
        if service.type is ServiceType.EXTERNAL_NAME:
            is_plain = not (question.endpoint or question.port or question.protocol)
            if not is_plain or is_ip(service.external_name):
                return None
            return Alias(f"{service.external_name}.")
        if question.endpoint and service.of_endpoints is not None:
            key = ServiceKey(service.key.namespace, f"{question.endpoint}.{service.key.name}")
            return self._part(service, key, asked)
        if question.endpoint:
            targets = EndpointTargets(owner, index.labelled(question.endpoint))
        elif service.is_headless:
            targets = EndpointTargets(owner, index.endpoints(*asked))
        else:
            whole = self._ports_of(index, asked)
            if not service.of_endpoints or whole is None:
                return whole
            parts = [self._part(service, key, asked) for key in service.of_endpoints]
            return EachTargets(whole, [part for part in parts if part is not None])
        return targets if len(targets) else None

    def _addresses(
        self,
        name: str,
        type_: RecordType,
        targets: Targets,
        pick: Pick,
        followed: frozenset[str] = frozenset(),
    ) -> DnsAnswer:
        if targets.alias:
            return self._follow(name, type_, targets.alias, pick, followed | {name.lower()})
        ips = targets.ips(pick, is_ipv6=type_ is RecordType.AAAA)
        chosen = pick(len(ips))
        records = tuple(Record(name, type_, ips[i], TTL_S) for i in chosen)
        return DnsAnswer(Code.NOERROR, records, is_partial=len(chosen) < len(ips))

    def _follow(
        self, name: str, type_: RecordType, alias: str, pick: Pick, followed: frozenset[str]
    ) -> DnsAnswer:
        """Return a CNAME and the target's addresses (none outside the cluster); or no record."""
        cname = _cname(name, alias)
        host = alias.lower()
        if not _is_below(host, self._zone):
            return DnsAnswer(Code.NOERROR, (cname,), elsewhere=alias)
        if host in followed or len(followed) > _CNAMES_MAX:
            return DnsAnswer(Code.NOERROR)
        targets = self._targets(host, self._zone)
        if targets is None:
            return DnsAnswer(Code.NOERROR)
        found = self._addresses(alias, type_, targets, pick, followed)
        records = (cname, *found.records) if found.records else ()
        return dataclasses.replace(found, records=records)

    def _srv(self, name: str, targets: Targets, pick: Pick) -> DnsAnswer:
        count = targets.count_ports()
        chosen = pick(count)
        # As in CoreDNS, all targets share one weight, which depends on the number of addresses.
        weight = max(1, 100 // max(1, len(targets)))
        ports = dict.fromkeys(itertools.chain.from_iterable(map(targets.ports_at, chosen)))
        records = tuple(
            Record(name, RecordType.SRV, f"0 {weight} {port} {to}", TTL_S) for to, port in ports
        )
        if len(chosen) < count:
            # Don't add the targets' addresses: there isn't even room for all SRV records.
            return DnsAnswer(Code.NOERROR, records, is_partial=True)
        additional = tuple(
            Record(to, RecordType.AAAA if ":" in ip else RecordType.A, ip, TTL_S)
            for to, ip in targets.addresses(pick)
        )
        return DnsAnswer(Code.NOERROR, records, additional=additional)

    def _pointers(self, name: str, address: str, pick: Pick) -> DnsAnswer | None:
        names = self._index.names_of(self._snapshot, address)
        chosen = pick(len(names))
        to = (f"{names[i]}.svc.{self._zone}" for i in chosen)
        records = tuple(Record(name, RecordType.PTR, each, TTL_S) for each in to)
        is_partial = len(chosen) < len(names)
        return DnsAnswer(Code.NOERROR, records, is_partial=is_partial) if records else None

    def _soa(self, zone: str) -> Record:
        serial = self._snapshot.revision & 0xFFFFFFFF
        data = f"ns.dns.{zone} hostmaster.{zone} {serial} 7200 1800 86400 {TTL_S}"
        return Record(zone, RecordType.SOA, data, TTL_S)

    def _name_of(self, service: Service) -> str:
        return f"{service.key.name}.{service.key.namespace}.svc.{self._zone}"


def _cname(name: str, alias: str) -> Record:
    return Record(name, RecordType.CNAME, alias, TTL_S)


def _is_below(name: str, zone: str) -> bool:
    return name == zone or name.endswith(f".{zone}")
