"""Keeps the active faults, by Service and endpoint.

    add ─▶ a server on loopback for the endpoint ─▶ Proxy.detour: it is dialled instead

Rule 1: only an endpoint that was given a fault or toxics has a server, until ``remove`` closes it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from userspace_proxy.errors import ConfigError
from userspace_proxy.model import Protocol, ServiceKey, SocketAddress
from userspace_proxy.plan.detours import At, Reasons

from .datagrams import FaultDatagrams
from .detour_server import FaultServer, Mode
from .fault_types import (
    LISTENER_TYPES,
    check_given,
    check_listener_fault,
    check_type,
)
from .toxics import DOWNSTREAM, TYPES, UDP_TYPES, NamedToxic, read_toxic

_MODES = {mode.value: mode for mode in Mode if mode is not Mode.PASS}

_Detour = Callable[[ServiceKey, Mapping[At, SocketAddress], Callable[[], Reasons]], object]


class EndpointFaults:
    """One proxy's faults.

    Args:
        detour: Redirects dials of a Service's endpoints: ``Proxy.detour``.
    """

    def __init__(self, detour: _Detour) -> None:
        self._detour = detour
        self._servers: dict[ServiceKey, dict[At, FaultServer | FaultDatagrams]] = {}

    def add(
        self,
        service: ServiceKey,
        endpoint: SocketAddress,
        protocol: Protocol,
        type_: str,
        attributes: Mapping[str, int],
        *,
        stream: str = DOWNSTREAM,
        toxicity: float = 1.0,
        name: str = "",
    ) -> None:
        """Add a fault to a Service's endpoint, replacing a fault of the same name.

        Args:
            type_: A toxic of toxiproxy, ``refuse``, ``silent``, ``half_open``, or ``fail_first``
                with ``count``; with UDP ``latency``, ``loss``, ``reorder``.

        Raises:
            ConfigError: The fault doesn't exist, or an argument is invalid.
            TypeError: The type isn't a string.
        """
        is_udp = protocol is Protocol.UDP
        check_type(type_, protocol)
        if not is_udp and type_ in LISTENER_TYPES:
            first = check_listener_fault(type_, attributes)
            if stream != DOWNSTREAM or toxicity != 1 or name:
                raise ConfigError(
                    f"fault {type_}: it has no stream, toxicity or name", hint="give none of them"
                )
            server = self._server(service, endpoint, is_udp=False)
            assert isinstance(server, FaultServer), "TCP"
            if first is not None:
                server.first_resets = first
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
        check_given(toxic.toxic, attributes)
        server = self._server(service, endpoint, is_udp=is_udp)
        server.set_toxics([*(t for t in server.toxics if t.name != toxic.name), toxic])

    def remove(
        self,
        service: ServiceKey,
        endpoint: SocketAddress | None = None,
        protocol: Protocol | None = None,
    ) -> None:
        """Remove all faults of an endpoint or Service, and reset its connections. Idempotent.

        Args:
            protocol: Remove only faults of this protocol; None for faults of both.
        """
        servers = self._servers.get(service, {})
        for at in list(servers):
            if endpoint in (None, at.endpoint) and protocol in (None, at.protocol):
                servers.pop(at).close()
        if servers:
            self._redirect(service)
        elif self._servers.pop(service, None) is not None:
            self._detour(service, {}, dict)

    def set_toxics(
        self,
        service: ServiceKey,
        endpoint: SocketAddress,
        protocol: Protocol,
        toxics: Sequence[NamedToxic],
    ) -> None:
        """Replace an endpoint's toxics.

        Even without toxics, connections pass through a server, so that later toxics affect them.
        """
        self._server(service, endpoint, is_udp=protocol is Protocol.UDP).set_toxics(toxics)

    def drop_connections(self, service: ServiceKey) -> None:
        """Reset a Service's open connections that pass through a server."""
        for server in self._servers.get(service, {}).values():
            if isinstance(server, FaultServer):
                server.drop_connections()

    def of(self, service: ServiceKey) -> Reasons:
        """Return descriptions of a Service's faults, by endpoint; only endpoints with faults."""
        servers = self._servers.get(service, {})
        return {at: words for at, server in servers.items() if (words := _words(server))}

    async def close(self) -> None:
        """Close all servers; the detours stay. Idempotent."""
        for servers in self._servers.values():
            for server in servers.values():
                server.close()
        self._servers.clear()

    def _server(
        self, service: ServiceKey, endpoint: SocketAddress, *, is_udp: bool
    ) -> FaultServer | FaultDatagrams:
        servers = self._servers.setdefault(service, {})
        at = At(Protocol.UDP if is_udp else Protocol.TCP, endpoint)
        server = servers.get(at)
        if server is None:
            # Give each server its own seed: with equal seeds, a fault that hits one endpoint would
            # always hit the next endpoint, too.
            make, seed = FaultDatagrams if is_udp else FaultServer, len(servers)
            server = make(endpoint, seed=seed)
            servers[at] = server
            self._redirect(service)
        return server

    def _redirect(self, service: ServiceKey) -> None:
        servers = self._servers[service]
        detours = {at: server.address for at, server in servers.items()}
        self._detour(service, detours, partial(self.of, service))


def _words(server: FaultServer | FaultDatagrams) -> list[str]:
    units = "connections" if isinstance(server, FaultServer) else "datagrams"
    words = [_toxic_in_words(named, units) for named in server.toxics]
    if isinstance(server, FaultServer):
        words += [server.mode.value] if server.mode is not Mode.PASS else []
        first = server.first_resets
        when = " at connect" if first.at_connect else ""
        words += [f"fails the next {first.count}{when}"] if first.count else []
    return words


def _toxic_in_words(named: NamedToxic, units: str) -> str:
    attributes = ", ".join(f"{k}={v}" for k, v in named.toxic.attributes().items() if v)
    share = "" if named.toxicity == 1 else f" for {named.toxicity:.0%} of {units}"
    return f"{named.toxic.TYPE}({attributes}) {named.stream}{share}"
