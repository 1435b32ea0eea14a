"""Makes the slices of a Service whose endpoints a program names by address or DNS name.

Rule 1: a name is accepted only at or below a name that the options allow.
Rule 2: all other arguments, such as weights, work as for endpoints by address.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from ..errors import ConfigError
from ..model import EndpointSlice, Service, SliceKey
from ..model.endpoint_names import NAMES_MAX, NameSlice, is_below, read_host
from .arguments import EndpointAddress, is_address, make_slices


def make_all_slices(
    service: Service,
    endpoints: Iterable[EndpointAddress],
    standby: Iterable[EndpointAddress],
    allowed: Sequence[str],
) -> list[EndpointSlice]:
    """Return the slices of a one-port Service as ``make_slices`` does, and slices for names.

    Args:
        allowed: ``allow_endpoint_names`` of :class:`Options`.

    Raises:
        ValueError: See ``make_slices``; also if a name isn't allowed, or there are too many names.
        TypeError: See ``make_slices``.
    """
    names = _NamedAmong(tuple(allowed))
    addresses, named = names.split(endpoints)
    other_addresses, other_named = names.split(standby)
    slices = make_slices(service, addresses, other_addresses)
    if not names.hosts:
        return slices
    # Remove the cluster IPs, because DNS decides the families.
    of_names = make_slices(replace(service, cluster_ips=()), named, other_named)
    return [*slices, *(names.named(item) for item in of_names)]


class _NamedAmong:
    """Replaces the DNS names among endpoints by placeholder addresses."""

    def __init__(self, allowed: tuple[str, ...]) -> None:
        self.hosts: dict[str, str] = {}
        """Names by placeholder, an address reserved for documentation (RFC 5737)."""
        self._allowed = allowed
        self._seen: dict[EndpointAddress, int] = {}
        """The id of the argument that contains an endpoint, by the endpoint's placeholder."""

    def split(
        self, endpoints: Iterable[EndpointAddress]
    ) -> tuple[Iterable[EndpointAddress], Iterable[EndpointAddress]]:
        """Split endpoints into addresses, valid or not, and placeholders for names.

        Raises:
            ValueError: A name is invalid, not allowed or one too many, or is in both arguments.
        """
        if isinstance(endpoints, str) or not isinstance(endpoints, Iterable):
            return endpoints, ()
        found = [(endpoint, self._substitute(endpoint)) for endpoint in endpoints]
        addresses = [endpoint for endpoint, substitute in found if substitute is None]
        named = [(endpoint, substitute) for endpoint, substitute in found if substitute is not None]
        for endpoint, substitute in named:
            if self._seen.setdefault(substitute, id(endpoints)) != id(endpoints):
                raise ValueError(
                    f"endpoint {endpoint!r}: expected in endpoints or standby, not both"
                )
        if isinstance(endpoints, Mapping):
            weights = {substitute: endpoints[endpoint] for endpoint, substitute in named}
            return {endpoint: endpoints[endpoint] for endpoint in addresses}, weights
        return addresses, [substitute for _, substitute in named]

    def named(self, item: EndpointSlice) -> NameSlice:
        """Convert a slice of placeholder addresses to a slice of names."""
        endpoints = tuple(replace(e, ip=self.hosts[e.ip]) for e in item.endpoints)
        key = SliceKey(item.key.namespace, f"{item.service.name}-names-{item.ports[0].port}")
        return NameSlice.of(replace(item, key=key, endpoints=endpoints))

    def _substitute(self, endpoint: EndpointAddress) -> EndpointAddress | None:
        """Return an endpoint's placeholder and port, or None if it doesn't look like a DNS name.

        Raises:
            ValueError: The name or port is invalid, or the name isn't allowed or is one too many.
        """
        if isinstance(endpoint, str):
            host, colon, port = endpoint.rpartition(":")
            if not colon:
                host, port = endpoint, ""
        elif is_address(endpoint):
            host, port = endpoint[0], str(endpoint[1])
        else:
            return None
        if not _is_meant_as_name(host):
            return None
        try:
            name = read_host(host)
        except ConfigError as exc:
            expected = "expected letters, digits, - and _ between dots"
            raise ValueError(f"endpoint {endpoint!r}: {exc}: {expected}") from None
        if "." not in name and not is_below(name, self._allowed):
            return None
        if not port:
            raise ValueError(f"endpoint {endpoint!r}: it has no port: write {name}:PORT")
        if not (port.isascii() and port.isdecimal() and 1 <= int(port[:6]) <= 65535):
            raise ValueError(f"endpoint {endpoint!r}: expected a port in 1–65535, got {port}")
        self._check_allowed(endpoint, name)
        ips = {known: ip for ip, known in self.hosts.items()}
        if name not in ips and len(ips) >= NAMES_MAX:
            raise ValueError(f"endpoint {endpoint!r}: a Service may have {NAMES_MAX} names")
        ip = ips.get(name, f"192.0.2.{len(ips) + 1}")
        self.hosts[ip] = name
        return f"{ip}:{port}"

    def _check_allowed(self, endpoint: EndpointAddress, name: str) -> None:
        """Raise ValueError unless a name may be looked up; the message names the option to set."""
        if is_below(name, self._allowed):
            return
        _, _, parent = name.partition(".")
        suffix = parent if "." in parent else name
        which = f"only names below {', '.join(self._allowed)}" if self._allowed else "no names"
        raise ValueError(
            f"endpoint {endpoint!r}: this proxy looks up {which}: "
            f"pass Options(allow_endpoint_names={(*self._allowed, suffix)!r})"
        )


def _is_meant_as_name(host: str) -> bool:
    """Return whether a host is intended as a name, possibly invalid, and not as an address."""
    is_other = not host or host == "localhost" or any(mark in host for mark in ":/[]")
    return not is_other and not host.rpartition(".")[2].isdigit()
