"""Validates the arguments of an embedded proxy, and finds free addresses for Services.

Rule 1: values that the API server would reject are rejected; the error names the argument, the
value and the expected form.
Rule 2: instances of subclasses of str and int are converted to str and int, for messages to
workers.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Collection, Iterable, Mapping
from inspect import Parameter, signature
from typing import Any, TypedDict, Unpack

from ..errors import ConfigError
from ..model import (
    DEFAULT_WEIGHT,
    Balance,
    Endpoint,
    EndpointSlice,
    Handling,
    IPFamily,
    Protocol,
    Service,
    ServiceKey,
    ServicePort,
    SliceKey,
    SlicePort,
    SocketAddress,
    parse_ip,
)
from ..model.annotations import ANNOTATIONS, WEIGHT_MAX, WITHOUT_SLOW_START
from ..model.service_reading import AFFINITY_TIMEOUT_MAX_S
from ..model.similar import did_you_mean
from ..model.syntax import check_label
from ..model.wire import FieldError

EndpointAddress = str | tuple[str, int]
"""``ip:port`` or ``[ip6]:port``, or an (IP, port) tuple as ``getsockname()`` returns it."""

_ANNOTATIONS = {annotation.name.replace("-", "_"): annotation for annotation in ANNOTATIONS}
_NAMED = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
_SEED_MAX = 2**32 - 1
# 127.64.0.0/10: loopback addresses that no program uses, so that every Service gets its own address
# and the requested port.
_LOOPBACK_FIRST = (127 << 24) | (64 << 16)
_LOOPBACKS = 1 << 22


def read_key(namespace: str, name: str) -> ServiceKey:
    """Validate the identity of a Service, or raise ValueError or TypeError."""
    return ServiceKey(read_label(namespace, "namespace"), read_label(name, "name"))


def read_label(text: str, argument: str) -> str:
    """Validate a namespace or name, or raise ValueError or TypeError with the argument's name."""
    if not isinstance(text, str):
        raise TypeError(f"{argument}: expected a str, got {text!r}")
    try:
        check_label(text, argument)
    except FieldError as exc:
        raise ValueError(f"{exc.path}: {exc.problem}") from None
    return str.__str__(text)


def read_port(port: int, protocol: str) -> ServicePort:
    """Validate a Service's only port, or raise ValueError or TypeError."""
    if not _is_int(port):
        raise TypeError(f"port: expected an int, got {port!r}")
    if not 1 <= port <= 65535:
        raise ValueError(f"port: {port} is not in 1–65535")
    if protocol not in tuple(Protocol.__members__):
        raise ValueError(f"protocol: {protocol!r} is not TCP or UDP")
    return ServicePort("", int(port), str.__str__(protocol))


def read_affinity(seconds: int | None) -> int | None:
    """Validate the timeout of ClientIP affinity, or raise ValueError or TypeError."""
    if seconds is None:
        return None
    if not _is_int(seconds):
        raise TypeError(f"affinity_timeout_s: expected an int or None, got {seconds!r}")
    if not 1 <= seconds <= AFFINITY_TIMEOUT_MAX_S:
        raise ValueError(f"affinity_timeout_s: {seconds} is not in 1–{AFFINITY_TIMEOUT_MAX_S}")
    return int(seconds)


class HandlingArguments(TypedDict, total=False):
    """Arguments that correspond to annotations of a Service; None for the default."""

    hold: str | None
    """``60s`` or ``60s,1000``: how long connections wait while no endpoint can accept them, and
    their maximum number; None to refuse them."""
    slow_start: str | None
    """``30s``: the time in which a new or recovered endpoint reaches its share of connections;
    None for no slow start."""
    max_connections: int | str | None
    """The maximum number of connections to one endpoint, at which new connections wait; None for no
    limit."""
    wake: str | None
    """``deployment/web`` or ``statefulset/db``: the workload that serves waiting connections;
    ``/api/v1/demand`` and the metrics report its demand. Only a cluster's proxy can have it
    scaled."""
    on_endpoint_removal: str | None
    """``keep``, the default, or ``30s``: when connections to a removed endpoint are closed."""
    path: str | None
    """``kernel``, which requires ``nftables`` steering; ``auto``, which means ``userspace`` with
    any other steering; None for the path of :class:`Options`."""
    port_ranges: str | None
    """``8080=8080-8099``: further ports, each forwarded to the same port of the endpoint, shifted
    by the difference between the endpoint's port and ``port``. With ``none`` steering: at most 100
    TCP ports. Faults apply only to the endpoint's own port."""
    proxy_protocol: str | None
    """``v1`` or ``v2``: TCP connections to endpoints begin with a header that names the client."""


def read_handling(
    seed: int = 0, *, balance: str = Balance.ROUND_ROBIN, **others: Unpack[HandlingArguments]
) -> Handling:
    """Parse arguments for the handling of connections, or raise ValueError or TypeError."""
    if not _is_int(seed):
        raise TypeError(f"seed: expected an int, got {seed!r}")
    if not 0 <= seed <= _SEED_MAX:
        raise ValueError(f"seed: {seed} is not in 0–{_SEED_MAX}")
    fields: dict[str, Any] = {"seed": int(seed)}
    check_names(others, read_handling)
    asked: dict[str, Any] = {"balance": balance, **others}
    for name, value in asked.items():
        if value is None:
            continue
        if not isinstance(value, str) and not _is_int(value):
            raise TypeError(f"{name}: expected a str or an int, got {value!r}")
        annotation = _ANNOTATIONS[name]
        try:
            fields[annotation.field] = annotation.read(str(value))
        except ConfigError as exc:
            raise ValueError(f"{name}: {exc}") from None
    if fields.get("balance") is Balance.SOURCE_HASH and "slow_start_s" in fields:
        raise ValueError(f"slow_start: {WITHOUT_SLOW_START}")
    if "wake" in fields and "hold" not in fields:
        raise ValueError("wake: no connection waits without hold: give both")
    return Handling(**fields)


def check_names(names: Iterable[str], function: Callable[..., object]) -> None:
    """Raise a TypeError unless extra keyword arguments of a function are annotations' names."""
    for name in names:
        if name not in _ANNOTATIONS:
            own = signature(function).parameters.values()
            near = did_you_mean(name, [*_ANNOTATIONS, *(p.name for p in own if p.kind in _NAMED)])
            hint = f" ({near})" if near else ""
            raise TypeError(f"unexpected keyword argument {name!r}{hint}")


def read_endpoint(endpoint: EndpointAddress) -> SocketAddress:
    """Parse the address of an endpoint, or raise ValueError or TypeError."""
    if isinstance(endpoint, str):
        _, scheme, rest = endpoint.partition("://")
        if scheme:
            at = rest.partition("/")[0]
            raise ValueError(f"endpoint {endpoint!r}: expected no scheme and no path: write {at}")
        host, colon, port_text = endpoint.rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        port = int(port_text) if colon and port_text.isdecimal() else 0
    elif is_address(endpoint):
        host, port = endpoint[:2]
    else:
        raise TypeError(f"endpoint {endpoint!r}: expected ip:port, or a tuple of IP and port")
    if not 1 <= port <= 65535:
        raise ValueError(f"endpoint {endpoint!r}: expected ip:port, with a port in 1–65535")
    try:
        return SocketAddress(parse_ip(host), int(port))
    except ValueError:
        hint = f": write 127.0.0.1:{port}" if host == "localhost" else ", not a name"
        raise ValueError(f"endpoint {endpoint!r}: expected an IP address{hint}") from None


def make_slices(
    service: Service,
    endpoints: Iterable[EndpointAddress],
    standby: Iterable[EndpointAddress] = (),
) -> list[EndpointSlice]:
    """Return the slices of a one-port Service, one slice per family and port of its endpoints.

    Args:
        endpoints: Endpoints, or a mapping from endpoints to weights.
        standby: Endpoints of the second priority, in the same form.

    Raises:
        ValueError: An endpoint isn't an address, is in both arguments, or is of a family that the
            Service doesn't have; a weight is out of range.
        TypeError: An endpoint or weight has another type, or an argument isn't a list or mapping.
    """
    families = {SocketAddress(ip, 0).family for ip in service.cluster_ips}
    made: dict[SocketAddress, Endpoint] = {}
    for priority, (argument, given) in enumerate((("endpoints", endpoints), ("standby", standby))):
        if isinstance(given, str) or not isinstance(given, Iterable):
            raise TypeError(f"{argument}: expected a list of ip:port, got {given!r}")
        for endpoint in given:
            address = read_endpoint(endpoint)
            if families and address.family not in families:
                (family,) = families
                raise ValueError(
                    f"endpoint {address}: expected an {family} address, as the Service's"
                )
            if priority and address in made and not made[address].priority:
                raise ValueError(f"endpoint {address}: expected in endpoints or standby, not both")
            weight = _read_weight(given[endpoint]) if isinstance(given, Mapping) else DEFAULT_WEIGHT
            made[address] = Endpoint(address.ip, weight=weight, priority=priority)
    protocol = service.ports[0].protocol
    groups: dict[tuple[IPFamily, int], list[Endpoint]] = {}
    for address, made_of in made.items():
        groups.setdefault((address.family, address.port), []).append(made_of)
    return [
        EndpointSlice(
            SliceKey(service.key.namespace, f"{service.key.name}-{family.value}-{port}"),
            service.key,
            family,
            (SlicePort("", port, protocol),),
            tuple(ips),
        )
        for (family, port), ips in groups.items()
    ]


def _read_weight(weight: object) -> int:
    if not isinstance(weight, int) or isinstance(weight, bool):
        raise TypeError(f"weight: expected an int, got {weight!r}")
    if not 0 <= weight <= WEIGHT_MAX:
        raise ValueError(f"weight: {weight} is not in 0–{WEIGHT_MAX}")
    return int(weight)


def is_address(value: object) -> bool:
    """Return whether a value is a tuple that starts with a string and a number."""
    return (
        isinstance(value, tuple)
        and len(value) >= 2
        and isinstance(value[0], str)
        and _is_int(value[1])
    )


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def free_loopback(key: ServiceKey, taken: Collection[str], seed: str) -> str:
    """Return an address of 127.64.0.0/10 for a Service; equal arguments give the same address.

    Raises:
        ValueError: All addresses are taken.
    """
    start = zlib.crc32(f"{seed}/{key}".encode())
    for step in range(_LOOPBACKS):
        number = _LOOPBACK_FIRST + (start + step) % _LOOPBACKS
        ip = ".".join(str(number >> shift & 255) for shift in (24, 16, 8, 0))
        if ip not in taken and not ip.endswith((".0", ".255")):
            return ip
    raise ValueError("all addresses of 127.64.0.0/10 are in use")
