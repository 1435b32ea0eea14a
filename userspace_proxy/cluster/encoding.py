"""Encodes a snapshot for the state on disk: JSON lines, compressed by gzip.

    {"format":…}                                        a number for its types (``type_digest``)
    {"of":{…},"node":{…},"node_addresses":[…]}          the state's owner, and Nodes
    {"service":{…},"slices":[{…},…]}                    one line for each Service, in order

Rule 1: a snapshot contains no Secrets, only parts of Services, EndpointSlices and Nodes that affect
traffic.
Rule 2: gzip's CRC-32 detects an incomplete or damaged state; text from another program is validated
like any input, so a decoded snapshot contains nothing invalid.
Rule 3: equal snapshots are encoded as equal bytes.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace

import msgspec

from ..causes.notes import cause_of
from ..causes.say import say
from ..errors import InputError
from ..model import EndpointSlice, IPFamily, Node, Service, ServiceKey, parse_ip
from ..model.addresses import parse_network
from ..model.annotations import WEIGHT_MAX
from ..model.notes import Note
from .persistent import PersistentMap
from .slices import Slices
from .store import ServiceState, Snapshot
from .type_digest import digest

TEXT_BYTES_MAX = 256 << 20
"""The maximum size before compression, enough for 200,000 Services with three endpoints each."""

# zlib's window size parameter for the gzip format.
_GZIP = 31
# The compression level: five times as fast as zlib's default, and the output is a tenth larger.
_LEVEL = 1
_BYTE = "(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_is_ipv4 = re.compile(rf"(?:{_BYTE}\.){{3}}{_BYTE}").fullmatch
# The number of Services, ports and endpoints encoded at once, in 0.5 ms: other threads wait.
_BATCH = 600

_CORRUPT = (ValueError, msgspec.MsgspecError, RecursionError)


@dataclass(frozen=True, slots=True)
class StateOwner:
    """The proxy to which a state belongs, and the source of its Services."""

    source: str
    """``kubernetes`` or ``manifests``."""
    location: str
    """The API server and its certificate authority, or the folder."""
    node: str
    """This node's name."""
    proxy_name: str
    """The ``--service-proxy-name``; may be empty."""


@dataclass(frozen=True, slots=True)
class _Version:
    format: int


@dataclass(frozen=True, slots=True)
class _Head:
    of: StateOwner
    node: Node | None
    node_addresses: tuple[str, ...] | None


FORMAT = digest(_Head, ServiceState)
"""The number of the format, which changes whenever one of these types changes."""
_encoder = msgspec.json.Encoder()
_version_decoder = msgspec.json.Decoder(_Version)
_head_decoder = msgspec.json.Decoder(_Head)
_service_decoder = msgspec.json.Decoder(ServiceState)


def encode_state(snapshot: Snapshot, owner: StateOwner) -> bytes:
    """Encode a snapshot; call this in a thread, because 10,000 Services take about 0.2 s.

    Raises:
        InputError: The snapshot is too large.
    """
    compressor = zlib.compressobj(_LEVEL, wbits=_GZIP)
    parts: list[bytes] = []
    size = 0
    for text in _texts(snapshot, owner):
        size += len(text)
        if size > TEXT_BYTES_MAX:
            raise InputError(f"the state is larger than {TEXT_BYTES_MAX >> 20} MiB")
        parts.append(compressor.compress(text))
    parts.append(compressor.flush())
    return b"".join(parts)


def decode_state(data: bytes, owner: StateOwner) -> Snapshot:
    """Decode the result of :func:`encode_state`; the snapshot's revision is 0.

    Args:
        owner: The owner that the state must have.

    Raises:
        InputError: The data has another format or owner, is corrupt, or is too large.
    """
    version, _, rest = _decompress(data).partition(b"\n")
    head, _, services = rest.partition(b"\n")
    try:
        number = _version_decoder.decode(version).format
        if number != FORMAT:
            raise InputError(f"its format is {number}, and this version reads {FORMAT}")
        others = _head_decoder.decode(head)
        _check_owner(others.of, owner)
        states = _service_decoder.decode_lines(services)
        _check_ips(others.node_addresses or ())
        if others.node is not None:
            _check_node(others.node)
        for state in states:
            _check_service(state.service)
            for each in state.slices:
                _check_slice(each)
    except _CORRUPT as exc:
        raise InputError(f"it is corrupt: {' '.join(str(exc).split())}") from exc
    read = {s.service.key: replace(s, slices=Slices.of(s.slices)) for s in states}
    return Snapshot(
        PersistentMap[ServiceKey, ServiceState]().changed(read),
        others.node,
        None if others.node_addresses is None else frozenset(others.node_addresses),
    )


def _texts(snapshot: Snapshot, owner: StateOwner) -> Iterator[bytes]:
    nodes = snapshot.node_addresses
    head = _Head(owner, snapshot.node, None if nodes is None else tuple(sorted(nodes)))
    yield _encoder.encode_lines((_Version(FORMAT), head))
    batch: list[ServiceState] = []
    count = 0
    for state in snapshot.services.values():
        batch.append(state)
        count += 1 + len(state.service.ports)
        count += sum(len(each.endpoints) + len(each.ports) for each in state.slices)
        if count >= _BATCH:
            yield _encoder.encode_lines(batch)
            batch.clear()
            count = 0
    yield _encoder.encode_lines(batch)


def _decompress(data: bytes) -> bytes:
    decompressor = zlib.decompressobj(wbits=_GZIP)
    try:
        text = decompressor.decompress(data, TEXT_BYTES_MAX)
    except zlib.error as exc:
        raise InputError(f"it is corrupt: {exc}") from exc
    if decompressor.unconsumed_tail:
        raise InputError(f"it is larger than {TEXT_BYTES_MAX >> 20} MiB")
    if not decompressor.eof or decompressor.unused_data:
        raise InputError("it is corrupt: it is incomplete, or something follows its end")
    return text


def _check_owner(found: StateOwner, wanted: StateOwner) -> None:
    for field in fields(StateOwner):
        its, mine = getattr(found, field.name), getattr(wanted, field.name)
        if its != mine:
            raise InputError(f"its {field.name} is {its!r}, and this proxy's is {mine!r}")


def _check_node(node: Node) -> None:
    _check_ips(node.addresses)
    _check_networks(node.pod_networks)


def _check_service(service: Service) -> None:
    _check_ips((*service.cluster_ips, *service.external_ips))
    _check_ips((*service.load_balancer_ips, *service.balanced_elsewhere))
    _check_ips(service.handling.found_by_name)
    _check_networks(service.load_balancer_source_ranges)
    _check_port(service.health_check_node_port)
    _check_notes(service.notes)
    for port in service.ports:
        _check_port(port.port)
        _check_port(port.node_port)


def _check_slice(each: EndpointSlice) -> None:
    _check_ips([endpoint.ip for endpoint in each.endpoints])
    for endpoint in each.endpoints:
        if (":" in endpoint.ip) != (each.family is IPFamily.IPV6):
            raise ValueError(f"{endpoint.ip!r} is not an {each.family} address")
        if not (0 <= endpoint.weight <= WEIGHT_MAX and 0 <= endpoint.priority <= WEIGHT_MAX):
            raise ValueError(f"{endpoint.ip!r} has a weight or priority beyond {WEIGHT_MAX}")
    for port in each.ports:
        _check_port(port.port)
    _check_notes(each.notes)


def _check_notes(notes: Iterable[Note]) -> None:
    for note in notes:
        try:
            say(cause_of(note))
        except TypeError as exc:
            raise ValueError(f"{note.kind}: {exc}") from None


def _check_ips(ips: Iterable[str]) -> None:
    for ip in ips:
        # Cost: the pattern is ten times as fast as parsing; there may be thousands of endpoints.
        if _is_ipv4(ip) is None and parse_ip(ip) != ip:
            raise ValueError(f"{ip!r} is not in canonical form")


def _check_networks(networks: Iterable[str]) -> None:
    for network in networks:
        if str(parse_network(network)) != network:
            raise ValueError(f"{network!r} is not in canonical form")


def _check_port(port: int) -> None:
    if not 0 <= port <= 65535:
        raise ValueError(f"{port} is not a port")
