"""Computes a digest of the applied inputs from which each Service is planned, to compare nodes.

    applied snapshot ──digest_of──▶ {namespace/name: 8 hex digits} ──▶ 64 buckets ──▶ one digest

Rule 1: equal objects give equal digests on every node, whatever its settings, addresses and zone:
inputs that depend on these (node ports' addresses, hints, zones, DNS names) are excluded. Digests
therefore cover the inputs of a plan, not the planned Service ports, which differ between nodes.
Rule 2: a Service that no proxy serves has no digest.
Rule 3: digests with another :data:`FORM` can't be compared: increment it to cover other inputs.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from hashlib import blake2b

from ..cluster import PersistentMap, ServiceState, Slices, differing_keys
from ..model import Endpoint, EndpointSlice, ServiceKey, ServiceType
from ..model.handling import DEFAULT_HANDLING, Handling, Hold

FORM = 2
"""The version of the digests."""
BUCKETS = 64
"""The number of buckets: to find the Services that differ, only a few of 10,000 are read."""

_DIGEST_BYTES = 4
# Fields that aren't compared: each node resolves DNS names itself, and only embedding sets a seed.
_NODES_OWN = frozenset(("seed", "names", "found_by_name"))
_COMPARED = tuple(f.name for f in fields(Handling) if f.name not in _NODES_OWN)


def digest_of(state: ServiceState) -> str:
    """Return the digest of a Service, 8 hex digits; empty if no proxy serves it."""
    service = state.service
    is_served = not (service.is_headless or service.has_headless_label)
    if not is_served or service.type is ServiceType.EXTERNAL_NAME:
        return ""
    content = (
        str(service.key),
        str(service.type),
        service.proxy_name,
        [(port.name, port.port, str(port.protocol), port.node_port) for port in service.ports],
        service.cluster_ips,
        service.external_ips,
        service.load_balancer_ips,
        service.load_balancer_source_ranges,
        service.affinity_timeout_s,
        service.is_internal_local,
        service.is_external_local,
        service.health_check_node_port,
        _asked_for(service.handling),
        _sum_of_endpoints(state.slices),
    )
    return _hex(ascii(content), _DIGEST_BYTES)


def digests_of(services: Mapping[ServiceKey, ServiceState]) -> dict[str, str]:
    """Return the digests of Services by ``namespace/name``, omitting empty digests."""
    found = {str(key): digest_of(state) for key, state in services.items()}
    return {name: digest for name, digest in found.items() if digest}


def bucket_of(service: str) -> int:
    """Return the bucket number of a Service, given as ``namespace/name``."""
    return blake2b(_bytes(service), digest_size=1).digest()[0] % BUCKETS


def summary_of(digests: Mapping[str, str]) -> tuple[str, tuple[str, ...]]:
    """Return the digest of all Services, and the digest of each bucket."""
    buckets: list[dict[str, str]] = [{} for _ in range(BUCKETS)]
    for service, digest in digests.items():
        buckets[bucket_of(service)][service] = digest
    return _summary(map(_bucket, buckets))


class Digests:
    """The digests of one proxy's Services, as of its latest snapshot."""

    def __init__(self) -> None:
        self._services: Mapping[ServiceKey, ServiceState] = PersistentMap()
        self.buckets: tuple[Mapping[str, str], ...] = ({},) * BUCKETS
        """The digests by bucket; a change replaces the tuple instead of modifying it."""
        self.summary = summary_of({})

    def follow(self, services: Mapping[ServiceKey, ServiceState]) -> None:
        """Update the digests to a new snapshot; the cost depends only on the differences."""
        changed: dict[int, dict[str, str]] = {}
        for key in differing_keys(self._services, services):
            name, state = str(key), services.get(key)
            number = bucket_of(name)
            digest = "" if state is None else digest_of(state)
            if digest == self.buckets[number].get(name, ""):
                continue
            if number not in changed:
                changed[number] = dict(self.buckets[number])
            if digest:
                changed[number][name] = digest
            else:
                del changed[number][name]
        self._services = services
        if changed:
            _, sums = self.summary
            self.summary = _summary(
                _bucket(changed[number]) if number in changed else sums[number]
                for number in range(BUCKETS)
            )
            self.buckets = tuple(changed.get(at, old) for at, old in enumerate(self.buckets))


def _asked_for(handling: Handling) -> list[tuple[str, object]]:
    """Return the fields that differ from the defaults, so that a new field changes no digest."""
    if handling is DEFAULT_HANDLING:
        return []
    pairs = ((name, getattr(handling, name)) for name in _COMPARED)
    return [(name, _plain(v)) for name, v in pairs if v != getattr(DEFAULT_HANDLING, name)]


def _plain(value: object) -> object:
    """Return equal results for equal values: 60 may be 60.0 if it was read from the saved state."""
    match value:
        case int() | float():
            return float(value)
        case Hold(seconds, connections):
            return float(seconds), connections
        case _:
            return str(value)


def _sum_of_endpoints(slices: Sequence[EndpointSlice]) -> int:
    """Return a number for endpoints with their ports, however slices group them."""
    return sum(set[int]().union(*Slices.of(slices).derive(_hashes))) % (1 << 64)


def _hashes(slices: Iterable[EndpointSlice]) -> array[int]:
    """Return a hash of each endpoint and its ports; skip headless slices and endpoints by name."""
    found = array("Q")
    for item in slices:
        # Skip slices with the label of headless Services, as kube-proxy's selector does.
        if item.is_headless:
            continue
        ports = [(port.name, port.port, str(port.protocol)) for port in item.ports]
        start = blake2b(_bytes(ascii((item.family.value, ports))), digest_size=8).digest()
        listed = (_in_words(one).encode() for one in item.endpoints if not one.host)
        digests = (blake2b(start + words, digest_size=8).digest() for words in listed)
        found.extend(number for (number,) in struct.iter_unpack("<Q", b"".join(digests)))
    return found


def _in_words(one: Endpoint) -> str:
    conditions = f"{one.ready:d}{one.serving:d}{one.terminating:d}"
    return f"{one.ip} {conditions} {one.weight} {one.priority}"


def _bucket(digests: Mapping[str, str]) -> str:
    return _hex("\n".join(f"{name} {digests[name]}" for name in sorted(digests)), _DIGEST_BYTES)


def _summary(buckets: Iterable[str]) -> tuple[str, tuple[str, ...]]:
    sums = tuple(buckets)
    return _hex("\n".join(sums), 2 * _DIGEST_BYTES), sums


def _hex(text: str, size: int) -> str:
    return blake2b(_bytes(text), digest_size=size).hexdigest()


def _bytes(text: str) -> bytes:
    # A name with JSON escapes may contain a lone surrogate, which strict UTF-8 can't encode.
    return text.encode("utf-8", "surrogatepass")
