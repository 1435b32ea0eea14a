"""Derives slices with addresses from DNS for Services whose endpoints are DNS names.

    source ──snapshot──▶ EndpointsByName ──snapshot with slices of addresses──▶ rounds
    DNS ────lookups────▶ (host_table)         in steps: a Service takes about 50 µs

Rule 1: a name is looked up only if the operator has allowed it or a parent domain.
Rule 2: a forbidden address (``forbidden``) is never an endpoint, even if a name resolves to it.
Addresses are checked again when Services, Nodes or this node's addresses change. Each dial asks the
kernel whether the address is this node's (``OwnAddressCheck``).
Rule 3: a snapshot without names is passed on unchanged; otherwise the cost of a change depends only
on the Services and names that change.
Rule 4: a bug triggered by one Service removes only the endpoints by name of this Service, and adds
a note. The Service is derived again once it changes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from ..model import Endpoint, IPFamily, ServiceKey, SliceKey
from ..model.endpoint_names import (
    Lookup,
    NameProblem,
    NameSlice,
    NameState,
    ResolvedSlice,
    is_below,
)
from ..model.quoting import quoted
from ..model.reserved_addresses import behind_nat64
from .forbidden import ClusterNetworks, ForbiddenAddresses
from .host_table import HostTable
from .name_requests import NameRequest, derived_key, read_request, without_names
from .name_shares import NameShares
from .persistent import PersistentMap, differing_keys
from .store import ServiceState, Snapshot

USES_MAX = 64
"""The maximum number of names per Service, counted once per slice; each may yield 128 endpoints."""
_FORBIDDEN_SHOWN = 3
_Services = Mapping[ServiceKey, ServiceState]
_NOTHING: _Services = PersistentMap()
_T = TypeVar("_T")
_R = TypeVar("_R")


class EndpointsByName:
    """Derives slices from the DNS names of one proxy's Services.

    Args:
        allowed: Names that may be looked up, including all names below them.
        forbidden: The addresses to which names mustn't resolve.
    """

    def __init__(self, allowed: Sequence[str], forbidden: ForbiddenAddresses) -> None:
        self.hosts = HostTable()
        """The names to look up, with their addresses."""
        self._allowed = tuple(allowed)
        self._forbidden = forbidden
        self.last = Snapshot(_NOTHING)
        """The result of the last call of :meth:`turns` that ended."""
        self._source = self.last
        self._changes = 0
        """The number of snapshots caused by lookups alone."""
        self._requests: dict[ServiceKey, NameRequest] = {}
        self._shares = NameShares()
        self._affected: set[ServiceKey] = set()
        self.bugs: dict[ServiceKey, str] = {}
        """Services without endpoints by name because of a bug, each with the exception's text."""
        self._attempts = _GuardedSteps()
        """The steps of the current turns."""

    def derive(self, snapshot: Snapshot) -> Snapshot:
        """Return a source's snapshot with the slices derived from names, without pauses."""
        for _ in self.turns(snapshot):
            pass
        return self.last

    def turns(self, snapshot: Snapshot) -> Iterator[None]:
        """Derive the slices, and yield between steps; then :attr:`last` contains them.

        Results of lookups that arrive between two steps may be missing until the next snapshot.
        Call this again only once the iterator is exhausted.

        Args:
            snapshot: The source's snapshot, or the previous one again, to include newer lookups.
        """
        old, self._source, self._attempts = self._source, snapshot, _GuardedSteps()
        changed = differing_keys(old.services, snapshot.services)
        gone = {key for key in changed if key not in snapshot.services}
        if self._allowed:
            self._follow(old, snapshot, changed)
        for key in changed:
            self.bugs.pop(key, None)
            state = snapshot.services.get(key)
            request = None if state is None else self._attempts.attempt(key, read_request, state)
            if request is not None:
                self._requests[key] = request
                self._affected.add(key)
            elif self._requests.pop(key, None) is not None or key in self._attempts.raised:
                self._affected.add(key)
            yield
        affected, self._affected = self._affected, set()
        derived: dict[ServiceKey, ServiceState] = {}
        for key in (yield from self._share(affected)):
            self.bugs.pop(key, None)
            made = self._attempts.attempt(key, self._derive, key) if key in self._requests else None
            if key in self._attempts.raised:
                self.bugs[key] = self._attempts.raised[key]
                made = without_names(snapshot.services[key], self.bugs[key])
            if made is not None:
                last = self.last.services.get(key)
                derived[key] = last if last is not None and last == made else made
            yield
        self._update(changed, gone, derived, is_other=snapshot is not old)

    def learn(self, host: str, lookup: Lookup, now: float) -> bool:
        """Record a lookup's result at monotonic ``now``; return whether snapshots may change."""
        has_changed = self.hosts.learn(host, lookup, now)
        if has_changed:
            self._affected.update(self._shares.users.get(host, ()))
        return has_changed

    def look_again(self) -> None:
        """Check all addresses again, because this node's addresses have changed."""
        self._forbidden.look_again()
        self._affected.update(*self._shares.users.values())

    def _follow(self, old: Snapshot, new: Snapshot, changed: Collection[ServiceKey]) -> None:
        """Update the forbidden addresses, and mark the Services that the change may affect."""
        unknown = self._forbidden.unknown
        if self._forbidden.set_nodes(new.node, new.node_addresses):
            self._affected.update(*self._shares.users.values())
        if self._forbidden.unknown is not unknown:
            self._affected.update(self._requests)
        before = (old.services[key].service for key in changed if key in old.services)
        now = (new.services[key].service for key in changed if key in new.services)
        moved = self._forbidden.change_services(before, now)
        for host, users in self._shares.users.items() if moved else ():
            ips = [ip for family in IPFamily for ip in self.hosts.addresses(host, family)]
            if not moved.isdisjoint(ips) or not moved.isdisjoint(map(behind_nat64, ips)):
                self._affected.update(users)

    def _update(
        self,
        changed: Collection[ServiceKey],
        gone: Collection[ServiceKey],
        derived: Mapping[ServiceKey, ServiceState],
        *,
        is_other: bool,
    ) -> None:
        source, have = self._source, self.last.services
        services = source.services
        if self._requests or self.bugs:
            put = {key: services[key] for key in changed if key not in gone} | dict(derived)
            put = {key: state for key, state in put.items() if have.get(key) is not state}
            services = _changed(have, put, gone) if put or gone else have
        if not is_other and services is have:
            return
        self._changes += not is_other
        revision = source.revision + self._changes
        self.last = source
        if services is not source.services or revision != source.revision:
            self.last = replace(source, services=services, revision=revision)

    def _derive(self, key: ServiceKey) -> ServiceState:
        request, claimed = self._requests[key], self._shares.of(key)
        derived: dict[SliceKey, ResolvedSlice] = {}
        room = USES_MAX
        for item in request.named:
            wanted = [endpoint for endpoint in item.named if endpoint.ip in claimed]
            used, unused = wanted[:room], wanted[room:]
            room -= len(used)
            unused += (endpoint for endpoint in item.named if endpoint.ip not in claimed)
            # One unused name is enough to report why names aren't looked up.
            for endpoint in (*used, *unused[:1]):
                names = claimed if endpoint in used else ()
                for family in request.families:
                    made = self._resolve(names, item, endpoint, family)
                    derived.setdefault(made.key, made)
        service = request.state.service
        ips = sorted({endpoint.ip for item in derived.values() for endpoint in item.endpoints})
        handling = replace(service.handling, names=request.names, found_by_name=tuple(ips))
        return ServiceState(
            replace(service, handling=handling, notes=(*service.notes, *request.notes)),
            request.plain.changed(derived),
        )

    def _resolve(
        self, claimed: Collection[str], item: NameSlice, endpoint: Endpoint, family: IPFamily
    ) -> ResolvedSlice:
        host = endpoint.ip
        ips: tuple[str, ...] = ()
        problem: NameProblem | None
        if not is_below(host, self._allowed):
            problem = NameProblem(host, NameState.NOT_ALLOWED)
        elif (unknown := self._forbidden.unknown) is not None:
            problem = NameProblem(host, unknown)
        elif host not in claimed:
            problem = NameProblem(host, NameState.TOO_MANY)
        else:
            ips, problem = self.hosts.addresses(host, family), self.hosts.problem(host)
        refused = {ip: why for ip in ips if (why := self._forbidden.why(ip))}
        problems = [
            NameProblem(host, NameState.FORBIDDEN, f"{ip}, which is {why}")
            for ip, why in list(refused.items())[:_FORBIDDEN_SHOWN]
        ]
        has_last = len(ips) > len(refused)
        if problem is not None and (has_last or problem.state is not NameState.STALE):
            problems.append(problem)
        if not ips and not problems:
            problems.append(NameProblem(host, NameState.NO_ADDRESS, str(family)))
        return ResolvedSlice(
            derived_key(item.key, host, family),
            item.service,
            family,
            item.ports,
            tuple(replace(endpoint, ip=ip, host=host) for ip in ips if ip not in refused),
            notes=item.notes,
            problems=tuple(problems),
        )

    def _share(self, affected: Collection[ServiceKey]) -> Generator[None, None, set[ServiceKey]]:
        """Schedule lookups; return the affected Services and the Services with new shares."""
        asked: dict[ServiceKey, list[str]] = {}
        for key in sorted(affected):
            asked[key] = self._attempts.attempt(key, self._wanted, key) or []
            yield
        moved = yield from self._shares.turns(asked)
        hosts = {claim.host for claim in moved}
        hosts.update(host for key in affected for host in self._shares.of(key))
        for host in sorted(hosts):
            users = self._shares.users.get(host)
            if users:
                families = {f for user in users for f in self._requests[user].families}
                self.hosts.want(host, families, {user.namespace for user in users})
            else:
                self.hosts.forget(host)
        for key in affected & self._requests.keys():
            self._attempts.attempt(key, self._seed, key)
        return {claim.service for claim in moved}.union(affected)

    def _seed(self, key: ServiceKey) -> None:
        """Set the addresses of a Service's names to the addresses of an earlier run."""
        for host, item in self._requests[key].earlier:
            if host in self._shares.of(key):
                self.hosts.seed(host, item.family, [e.ip for e in item.endpoints])

    def _wanted(self, key: ServiceKey) -> list[str]:
        """Return the names of a Service that may be looked up."""
        request = self._requests.get(key)
        if request is None or self._forbidden.unknown is not None:
            return []
        return [host for host in request.hosts if is_below(host, self._allowed)]


def before_lookups(snapshot: Snapshot, allowed: Sequence[str]) -> Snapshot:
    """Return a snapshot of manifests as derived before any name has been looked up."""
    nothing_forbidden = ForbiddenAddresses(ClusterNetworks(), lambda _: False)
    return EndpointsByName(allowed, nothing_forbidden).derive(snapshot)


def _changed(have: _Services, put: _Services, gone: Collection[ServiceKey]) -> _Services:
    """Return a copy of these Services with some replaced and some removed."""
    if not isinstance(have, PersistentMap):
        have = PersistentMap[ServiceKey, ServiceState]().changed(have)
    return have.changed(put, gone)


class _GuardedSteps:
    """Runs the steps of one batch; a bug affects only the Service that triggers it."""

    def __init__(self) -> None:
        self.raised: dict[ServiceKey, str] = {}
        """The Services whose step raised an exception, each with the exception's text and place."""

    def attempt(self, key: ServiceKey, step: Callable[[_T], _R], value: _T) -> _R | None:
        """Return the result of a step; None if it raised an exception, which is recorded."""
        try:
            return step(value)
        except Exception as exc:  # noqa: BLE001 - the other Services must go on
            self.raised[key] = _described(exc)
            return None


def _described(exc: Exception) -> str:
    at = exc.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    where = f"{at.tb_frame.f_globals.get('__name__')}:{at.tb_lineno}" if at is not None else "?"
    return f"{quoted(exc)} at {where}"
