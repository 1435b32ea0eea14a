"""Groups causes that need attention into incidents: one cause is one incident.

    states of Service ports ──cause.shared──▶ groups ──merged if a host is gone──▶ incidents

Rule 1: causes are grouped by the object that they are about: an endpoint that refuses connections
of 35 Services is one incident, even if it fails some of them in another way. A cause that concerns
only its Service is an incident of that Service. A chain of another program that may take packets is
an incident with a neutral mark.
Rule 2: a node counts as failed only if several endpoint IPs on it fail as if the node were gone,
and no endpoint on it has answered since; or if it has all endpoints of several Services, and no
endpoint on it is ready. An IP with several such endpoints is one incident, too, as are a Service's
endpoints that fail alike.
Rule 3: this module judges nothing, and visits each Service port once, or twice if a node or an IP
may be gone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Container, Iterable, Iterator, Sequence
from typing import TypeAlias

from ..causes.cause import Cause, CauseCode, When
from ..causes.endpoints import no_route, node_silent, route_prohibits, route_unreachable
from ..causes.say import kubectl_words, on_node, remedy
from ..causes.slices import none_ready, none_ready_on
from ..facts import WORST_FIRST, EndpointFacts, IncidentFacts, Level, PortFacts, StatusFacts, worst
from ..model import port_of
from ..model.quoting import shell_command, shell_word
from ..policy.usable import EndpointState

_Key: TypeAlias = tuple[object, ...]
_Member: TypeAlias = tuple[PortFacts, Cause]
# The minimum number of unreachable endpoint IPs on a node to blame the node, and of unreachable
# endpoints of an IP to blame the IP: if there is only one, another cause is as likely.
_SEVERAL = 2
# The maximum number of ports in the address of an IP's incident.
_PORTS = 3
OF_ROUTES = (no_route, route_prohibits, route_unreachable)
"""The causes in this node's routes: they concern all endpoints of an IP, but not their node."""
_NO_ANSWER = "no answer"
_ALIKE = {
    CauseCode.ENDPOINT_REFUSES: "refused",
    CauseCode.ENDPOINT_RESETS: _NO_ANSWER,
    CauseCode.ENDPOINT_SENDS_NOTHING: _NO_ANSWER,
    CauseCode.ENDPOINT_ANSWERS_LATE: _NO_ANSWER,
}
"""The causes that all endpoints of a Service often have for one reason: the port, the protocol."""
_IP, _NODE = "IP", "node"
"""The start of the key of an IP, or of a node."""


class Incidents:
    """The incidents of one view.

    Args:
        view: All Service ports, with their states.
        server: The value of the user's flag ``--server``, which commands repeat; may be empty.
    """

    def __init__(self, view: StatusFacts, server: str = "") -> None:
        self._to_server = [f"--server={server}"] if server else []
        self._has_kubectl = view.source.kind == "kubernetes"
        self._count = len(view.ports)
        self._firewalls = {one.chain for one in view.firewalls}
        self._members: dict[_Key, list[_Member]] = {}
        self._joined: dict[_Key, _Key] = {}
        """The key of each merged incident, by the keys of the incidents that it replaces."""
        members = self._members
        for port in view.ports:
            # Cost: this check is enough for nearly all of a node's ten thousand ports.
            if self.has(port):
                for key, cause in _keyed(port):
                    members.setdefault(key, []).append((port, cause))
        self._join(view.ports)
        self._join_unready(view.ports)
        self._join_alike()

    def has(self, port: PortFacts) -> bool:
        """Return whether a Service port has incidents: it needs attention, or may lose packets.

        A doubtful chain that is among the node's firewalls is only a problem of the node.
        """
        if port.state.level is not Level.OK or not port.state.causes:
            return port.state.level is not Level.OK
        return port.doubt is not None and port.doubt.get("chain") not in self._firewalls

    def all(self, least: int = 1) -> tuple[IncidentFacts, ...]:
        """Return incidents that affect at least ``least`` Services, the worst and largest first."""
        return self._made(self._members, least)

    def at(self, ports: Sequence[PortFacts], least: int = 1) -> tuple[IncidentFacts, ...]:
        """Return incidents that affect ``least`` or more of these ports' Services, worst first."""
        if len(ports) == self._count or not self._members:
            return self.all(least)
        affected: dict[_Key, set[tuple[str, str]]] = {}
        for port in ports:
            for key in self._keys(port):
                affected.setdefault(key, set()).add((port.namespace, port.service))
        found = [key for key, services in affected.items() if len(services) >= least]
        return self._made(found, least)

    def find(self, id_: str) -> IncidentFacts | None:
        """Return the incident with an id; None if it never existed, or is over."""
        key = next((key for key in self._members if id_of(key) == id_), None)
        return None if key is None else self._facts(key)

    def ports(self, incident: IncidentFacts) -> Sequence[PortFacts]:
        """Return the Service ports that an incident of this view affects, the worst first."""
        key = next(key for key in self._members if id_of(key) == incident.id)
        ports = _distinct(self._members[key])
        return sorted(ports, key=lambda one: (WORST_FIRST.index(one.state.level), one.name))

    def ids(self, port: PortFacts) -> dict[object, str]:
        """Return the ids of a Service port's incidents, by the fact of the cause."""
        if not self.has(port):
            return {}
        return {cause.fact: id_of(self._joined.get(key, key)) for key, cause in _keyed(port)}

    def _keys(self, port: PortFacts) -> list[_Key]:
        if not self.has(port):
            return []
        return [self._joined.get(key, key) for key, _ in _keyed(port)]

    def _made(self, keys: Iterable[_Key], least: int) -> tuple[IncidentFacts, ...]:
        made = [self._facts(key) for key in keys if len(self._members[key]) >= least]
        found = [one for one in made if len(one.services) >= least]
        found.sort(key=lambda one: (WORST_FIRST.index(one.level), -len(one.services), one.id))
        return tuple(found)

    def _facts(self, key: _Key) -> IncidentFacts:
        members = self._members[key]
        ports, causes = _distinct(members), [cause for _, cause in members]
        services = sorted({f"{port.namespace}/{port.service}" for port in ports})
        levels = {port.state.level for port in ports}
        endpoints = {str(at): None for one in causes if (at := one.get("at"))}
        cause = seen_together(causes)
        if key[0] is _IP:
            cause = at_ports(cause, list(endpoints))
        elif key[0] is _NODE:
            row = none_ready_on if all(_is_unready(port) for port in ports) else node_silent
            cause = _with_times(row(str(key[-1])), causes)
            endpoints = endpoints if row is node_silent else {}
        return IncidentFacts(
            id=id_of(key),
            level=worst(levels),
            cause=cause,
            services=services,
            ports=len(ports),
            endpoints=tuple(endpoints),
            waiting=sum(port.waits.waiting for port in ports),
            last_minute=sum(map(_failed_lately, ports)),
            failed=sum(port.failed for port in ports),
            saved=sum(port.saved for port in ports),
            command=self._command(cause, services[0], pod_at(ports, endpoints)),
        )

    def _command(self, cause: Cause, service: str, pod: str) -> str:
        if self._has_kubectl and (words := kubectl_words(cause, service, pod)):
            return f"kubectl {words}"
        more = ["--probe"] if cause.code.traits.is_of_endpoint else []
        flags = shell_command(*more, *self._to_server)
        return on_node(cause) or f"userspace-proxy explain {shell_word(service)} {flags}".rstrip()

    def _join(self, ports: Sequence[PortFacts]) -> None:
        """Merge the incidents of all endpoints on a node, or at an IP, that is known to be gone."""
        gone = [key for key, members in self._members.items() if _may_be_gone(members)]
        if len(gone) < _SEVERAL:
            return
        of_gone = {id(port): port for key in gone for port, _ in self._members[key]}
        nodes = {e.address: e.node for port in of_gone.values() for e in port.endpoints}
        found: dict[_Key, list[_Key]] = {}
        for key in gone:
            at = str(key[-1])
            is_of_host = all(cause.row.is_of_host for _, cause in self._members[key])
            for place in _places(at, nodes.get(at, "") if is_of_host else ""):
                found.setdefault(place, []).append(key)
        since = {
            place: max(cause.first_at for key in keys for _, cause in self._members[key])
            for place, keys in found.items()
            if len(keys) >= _SEVERAL
        }
        # Cost: most of a view's tens of thousands of endpoints are skipped by this one condition.
        names = {place[-1] for place in since}
        for endpoint, port in _endpoints(ports) if since else ():
            if endpoint.node in names or _host_of(endpoint.address) in names:
                for place in _places(endpoint.address, endpoint.node):
                    if place in since and _has_answered(port, endpoint, since[place]):
                        del since[place]
        for place in sorted(since, key=lambda place: place[0] is _IP):
            # Nodes come first, so some endpoints may already be part of their node's incident.
            keys = [key for key in found[place] if key in self._members]
            hosts = {_host_of(str(key[-1])) for key in keys}
            if len(keys if place[0] is _IP else hosts) < _SEVERAL:
                continue
            self._merge(keys, place)

    def _join_unready(self, ports: Sequence[PortFacts]) -> None:
        """Merge the incidents of Services whose endpoints are all on a node without a ready one."""
        found: dict[str, list[PortFacts]] = {}
        for port in {id(one): one for of in self._members.values() for one, _ in of}.values():
            if _is_unready(port):
                found.setdefault(str(port.state.causes[0].get("node")), []).append(port)
        alive = {
            endpoint.node
            for endpoint, _ in (_endpoints(ports) if found else ())
            if endpoint.code is not CauseCode.NOT_READY
            and endpoint.state != EndpointState.PUBLISHED
        }
        for node, of_node in found.items():
            hosts = {_host_of(one.address) for one, _ in _endpoints(of_node)}
            services = {(port.namespace, port.service) for port in of_node}
            if node not in alive and min(len(hosts), len(services)) >= _SEVERAL:
                keys = dict.fromkeys(key for port in of_node for key in self._keys(port))
                self._merge([*keys], (_NODE, node))

    def _join_alike(self) -> None:
        """Merge the incidents of a single Service's endpoints that fail alike."""
        found: dict[_Key, list[_Key]] = {}
        for key, members in self._members.items():
            places: set[_Key] = {
                (_ALIKE.get(cause.code), port.namespace, port.service) for port, cause in members
            }
            place = places.pop()
            if len(key) == 1 and not places and place[0] is not None:
                found.setdefault(place, []).append(key)
        for place, keys in found.items():
            if len(keys) > 1:
                self._merge(keys, place)

    def _merge(self, keys: Sequence[_Key], place: _Key) -> None:
        joined = [self._members.pop(key) for key in keys]
        self._members[place] = [member for members in joined for member in members]
        earlier = {key: place if to in keys else to for key, to in self._joined.items()}
        self._joined = earlier | dict.fromkeys(keys, place)


def _keyed(port: PortFacts) -> Iterator[tuple[_Key, Cause]]:
    """Yield the causes of a Service port that become incidents, each with its grouping key.

    A cause that concerns only the Service becomes an incident if no other cause does, and if it
    decides the state.
    """
    # If a port has a neutral mark, only a chain that may take its packets concerns other Services.
    causes = port.state.causes if port.doubt is None else (port.doubt,)
    is_found = False
    for cause in causes:
        if (shared := cause.shared) is not None:
            is_found = True
            # Omit the code if the endpoint identifies the cause.
            yield shared if cause.row.shared is not None else shared[1:], cause
    if causes and not is_found:
        yield (causes[0].code, port.namespace, port.service), causes[0]


def _is_unready(port: PortFacts) -> bool:
    """Return whether no endpoint of a Service port is ready, and all are on one node."""
    causes = port.state.causes
    return bool(causes) and causes[0].row is none_ready and bool(causes[0].get("node"))


def _distinct(members: Iterable[_Member]) -> Sequence[PortFacts]:
    return list({id(port): port for port, _ in members}.values())


def id_of(key: _Key) -> str:
    """Return the id of a key for URLs; equal keys give equal ids."""
    name = "\n".join(map(str, key)).encode("utf-8", "surrogatepass")
    return hashlib.blake2s(name, digest_size=6).hexdigest()


def seen_together(causes: Sequence[Cause]) -> Cause:
    """Return the last seen cause, present causes first, with the counts of all causes alike."""
    last = max(causes, key=lambda cause: (cause.when is not When.PAST, cause.last_at))
    # Count only what the sentence states. Dials to a host that is gone fail in several ways, which
    # count together.
    return _with_times(last, [one for one in causes if _are_alike(one, last)])


def _are_alike(one: Cause, last: Cause) -> bool:
    is_same = one.code is last.code or (one.row.is_of_host and last.row.is_of_host)
    return is_same and (one.when is When.PAST) is (last.when is When.PAST)


def _with_times(cause: Cause, causes: Sequence[Cause]) -> Cause:
    return cause.replace(
        count=sum(max(0, one.count) for one in causes),
        first_at=min((one.first_at for one in causes if one.first_at), default=0.0),
        last_at=max(one.last_at for one in causes),
    )


def _failed_lately(port: PortFacts) -> int:
    last = port.last_minute
    aborts = last.client_aborts + last.endpoint_aborts
    return last.refused + last.unanswered + last.queued + aborts


def _may_be_gone(members: Sequence[_Member]) -> bool:
    return all(
        (cause.row.is_of_host or cause.row in OF_ROUTES) and cause.when is not When.PAST
        for _, cause in members
    )


def _endpoints(ports: Iterable[PortFacts]) -> Iterator[tuple[EndpointFacts, PortFacts]]:
    return ((endpoint, port) for port in ports for endpoint in port.endpoints)


def _places(at: str, node: str) -> Iterator[_Key]:
    """Yield the key of an endpoint's node, if that is known, and the key of its IP."""
    if node:
        yield _NODE, node
    yield _IP, _host_of(at)


def _host_of(at: str) -> str:
    return at.rpartition(":")[0]


def pod_at(ports: Iterable[PortFacts], addresses: Container[object]) -> str:
    """Return the pod of the first endpoint with one of the addresses; empty if it is unknown."""
    endpoints = (endpoint for endpoint, _ in _endpoints(ports) if endpoint.address in addresses)
    return next((endpoint.pod for endpoint in endpoints), "")


def remedy_in(port: PortFacts, cause: Cause) -> str:
    """Return the remedy for a cause of a Service port; its commands name the endpoint's pod."""
    pod = pod_at((port,), (cause.get("at"),))
    return remedy(cause, shell_command("-n", port.namespace, pod)) if pod else remedy(cause)


def at_ports(cause: Cause, endpoints: Sequence[str]) -> Cause:
    """Return a cause with the endpoints of an IP as one address, such as ``10.244.0.9:80,8080``."""
    ports = list(dict.fromkeys(map(port_of, endpoints)))
    more = ",…" if len(ports) > _PORTS else ""
    at = f"{_host_of(endpoints[0])}:{','.join(ports[:_PORTS])}{more}"
    return cause.row(**{**dict(cause.params), "at": at}).replace(**cause.modifiers())


def _has_answered(port: PortFacts, endpoint: EndpointFacts, since: float) -> bool:
    """Return whether an endpoint's host has responded since a time, even by a refusal."""
    # UDP flows also succeed without an answer, so only datagrams count.
    is_tcp = port.protocol != "UDP"
    cause, answered = endpoint.cause, [endpoint.answered_at * is_tcp, endpoint.sent_at]
    if cause is not None:
        if cause.row.is_of_host:
            return False
        if cause.code is CauseCode.ENDPOINT_REFUSES or (is_tcp and cause.code.traits.accepts):
            answered.append(cause.last_at)
    return max(answered) > since
