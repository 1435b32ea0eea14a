"""The faults in force, by Service and endpoint.

    add ─▶ a server on loopback for the endpoint ─▶ ServedPorts.detour: it is dialled instead

Rule 1: an endpoint without a fault is dialled itself; its server is closed with the last fault.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ..errors import ConfigError
from ..faults.datagrams import FaultDatagrams
from ..faults.server import FaultServer, Mode
from ..faults.toxics import TYPES, UDP_TYPES, NamedToxic, read_toxic
from ..model import Protocol, ServiceKey, SocketAddress
from ..model.similar import did_you_mean

FAIL_FIRST = "fail_first"
_MODES = {mode.value: mode for mode in Mode if mode is not Mode.PASS}

_TCP = (*TYPES, *_MODES, FAIL_FIRST)
_UDP = tuple(UDP_TYPES)

_Detour = Callable[[ServiceKey, Mapping[SocketAddress, SocketAddress]], object]


class EndpointFaults:
    """The faults of one proxy.

    Args:
        detour: Has endpoints of a Service dialled elsewhere.
    """

    def __init__(self, detour: _Detour) -> None:
        self._detour = detour
        self._servers: dict[ServiceKey, dict[SocketAddress, FaultServer | FaultDatagrams]] = {}

    def add(
        self,
        service: ServiceKey,
        endpoint: SocketAddress,
        protocol: Protocol,
        type_: str,
        attributes: Mapping[str, int],
        *,
        stream: str = "downstream",
        toxicity: float = 1.0,
        name: str = "",
    ) -> None:
        """Add a fault to one endpoint of a Service; one of the same name is replaced.

        Args:
            type_: A toxic of toxiproxy, ``refuse``, ``silent``, ``half_open``, or ``fail_first``
                with ``count``; with UDP ``latency``, ``loss``, ``reorder``.

        Raises:
            ConfigError: There is no such fault, or an attribute is invalid.
        """
        is_udp = protocol is Protocol.UDP
        _check_type(type_, is_udp=is_udp)
        if not is_udp and type_ in (*_MODES, FAIL_FIRST):
            count = _count(type_, attributes)
            server = self._server(service, endpoint, is_udp=False)
            assert isinstance(server, FaultServer), "TCP"
            if type_ == FAIL_FIRST:
                server.fails_first = count
            else:
                server.set_mode(_MODES[type_])
            return
        toxic = read_toxic(
            type_,
            attributes,
            stream=stream,
            toxicity=toxicity,
            name=name,
            types=UDP_TYPES if is_udp else TYPES,
        )
        server = self._server(service, endpoint, is_udp=is_udp)
        server.set_toxics([*(t for t in server.toxics if t.name != toxic.name), toxic])

    def remove(self, service: ServiceKey, endpoint: SocketAddress | None = None) -> None:
        """Remove all faults of an endpoint, or of a Service; idempotent."""
        servers = self._servers.get(service, {})
        for each in [endpoint] if endpoint is not None else list(servers):
            if (server := servers.pop(each, None)) is not None:
                server.close()
        if servers:
            self._redirect(service)
        elif self._servers.pop(service, None) is not None:
            self._detour(service, {})

    def set_toxics(
        self,
        service: ServiceKey,
        endpoint: SocketAddress,
        protocol: Protocol,
        toxics: Sequence[NamedToxic],
    ) -> None:
        """Replace the toxics of an endpoint.

        Even without one its connections lead through a server, so that later ones affect them.
        """
        self._server(service, endpoint, is_udp=protocol is Protocol.UDP).set_toxics(toxics)

    def drop_connections(self, service: ServiceKey) -> None:
        """Reset the open connections that lead through a server."""
        for server in self._servers.get(service, {}).values():
            if isinstance(server, FaultServer):
                server.drop_connections()

    def of(self, service: ServiceKey) -> Mapping[SocketAddress, Sequence[str]]:
        """Return the faults of a Service in words, by endpoint."""
        servers = self._servers.get(service, {})
        return {endpoint: _words(server) for endpoint, server in servers.items()}

    def close(self) -> None:
        """End all servers; the detours stay. Idempotent."""
        for servers in self._servers.values():
            for server in servers.values():
                server.close()
        self._servers.clear()

    def _server(
        self, service: ServiceKey, endpoint: SocketAddress, *, is_udp: bool
    ) -> FaultServer | FaultDatagrams:
        servers = self._servers.setdefault(service, {})
        server = servers.get(endpoint)
        if server is None:
            server = FaultDatagrams(endpoint) if is_udp else FaultServer(endpoint)
            servers[endpoint] = server
            self._redirect(service)
        return server

    def _redirect(self, service: ServiceKey) -> None:
        servers = self._servers[service]
        self._detour(service, {endpoint: server.address for endpoint, server in servers.items()})


def _check_type(type_: str, *, is_udp: bool) -> None:
    known, others = (_UDP, _TCP) if is_udp else (_TCP, _UDP)
    if type_ in known:
        return
    if type_ in others:
        raise ConfigError(f"fault {type_} is for {'TCP' if is_udp else 'UDP'} only")
    hint = did_you_mean(type_, known) or f"known: {', '.join(known)}"
    raise ConfigError(f"there is no fault {type_!r}", hint=hint)


def _count(type_: str, attributes: Mapping[str, int]) -> int:
    """Return the only attribute of a fault that isn't a toxic."""
    wanted = {"count"} if type_ == FAIL_FIRST else set()
    if attributes.keys() != wanted:
        hint = "give count=N" if wanted else "it takes none"
        raise ConfigError(f"fault {type_}: attributes {sorted(attributes)}", hint=hint)
    count = attributes.get("count", 0)
    if isinstance(count, bool) or count < 0:
        raise ConfigError(f"fault {type_}: count: {count!r} is not a number from 0")
    return count


def _words(server: FaultServer | FaultDatagrams) -> list[str]:
    words = [_toxic_in_words(named) for named in server.toxics]
    if isinstance(server, FaultServer):
        words += [server.mode.value] if server.mode is not Mode.PASS else []
        words += [f"fails the next {server.fails_first}"] if server.fails_first else []
    return words


def _toxic_in_words(named: NamedToxic) -> str:
    attributes = ", ".join(f"{k}={v}" for k, v in named.toxic.attributes().items() if v)
    share = "" if named.toxicity == 1 else f" for {named.toxicity:.0%} of connections"
    return f"{named.toxic.TYPE}({attributes}) {named.stream}{share}"
