"""Declares the facts about a connection or flow, for the connection log and for watchers.

    dataplane ──ConnectionFacts──┬▶ connection log: one line, at the end
                                 └▶ watchers: a line of JSON or text, or a row of the page

Rule 1: the JSON contains these fields; fields are only added, and have defaults.
Rule 2: workers and watchers apply the same :class:`ConnectionFilter`.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Mapping
from typing import Annotated, NamedTuple, TypedDict, get_type_hints

import msgspec

from ..causes.cause import CauseCode
from ..causes.endpoints import UNANSWERED_FLOW_S
from ..model import PortKey, ServicePortName, SocketAddress, ip_of
from ..model.connection_ends import EndedBy, EndReason

_Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
_Seconds = Annotated[float, msgspec.Meta(ge=-1e11, le=1e11)]
# The maximum length of texts from workers, which aren't trusted: names and addresses are shorter.
_Text = Annotated[str, msgspec.Meta(max_length=1024)]
_DIALS_MAX = 64
# The maximum number of filters that are watched at the same time: more than the number of streams.
FILTERS_MAX = 64


class ConnectionEvent(enum.StrEnum):
    """The kind of a line about connections."""

    ENDED = "ended"
    """The connection ended after an endpoint served it, or its client gave up."""
    SAVED = "saved"
    """The first dial failed, another endpoint answered, and the connection continues."""
    HELD = "held"
    """The connection waits until an endpoint can take it."""
    REFUSED = "refused"
    """No endpoint served the connection."""
    DROPPED = "dropped"
    """Packets of clients were dropped; only their number is known."""
    LEFT_OUT = "left-out"
    """Connections were omitted: the watcher was too slow, or there were too many."""
    UNSEEN = "unseen"
    """The connections of a Service port aren't visible to the proxy."""


_LOGGED = (
    "kind", "service", "client", "frontend", "via", "endpoint", "source", "dials", "failed",
    "waited_s", "first_byte_s", "received_bytes", "sent_bytes", "duration_s", "ended_by", "cause",
    "code",
)  # fmt: skip
"""The fields of a line in the connection log."""
_ROUNDED = ("waited_s", "first_byte_s", "duration_s")

_SOUND = frozenset(end for end in EndReason if end.is_sound)


class PortFields(TypedDict, total=False):
    """The fields that name the Service port of a record or an edge; empty without one."""

    service: str
    namespace: str
    name: str
    port: str


def port_fields(key: PortKey) -> PortFields:
    """Return the fields that name a Service port."""
    namespace, name, port = key.name
    return {"service": str(key), "namespace": namespace, "name": name, "port": port}


class FailedDialFacts(msgspec.Struct, frozen=True, gc=False):
    """An endpoint that didn't answer a dial."""

    endpoint: _Text = ""
    """The endpoint's address and port."""
    cause: CauseCode = CauseCode.ENDPOINT_FAILS

    def __str__(self) -> str:
        return f"{self.endpoint} {self.cause}"


class ConnectionFacts(msgspec.Struct, kw_only=True):
    """One connection or flow, at its end or while it is open, or a count of several."""

    event: ConnectionEvent = ConnectionEvent.ENDED
    """The event that the record reports."""
    at: _Seconds = 0.0
    """Unix time of the event."""
    kind: _Text = "connection"
    """``connection`` (TCP) or ``flow`` (UDP)."""
    service: _Text = ""
    """The Service port, with its family and side if it has several: ``shop/web:http (IPv6,
    external)``."""
    namespace: _Text = ""
    """The Service's namespace."""
    name: _Text = ""
    """The Service's name."""
    port: _Text = ""
    """The port's name; may be empty."""
    client: _Text = ""
    """The client's address and port."""
    client_pod: _Text = ""
    """The client's pod, ``namespace/name``, if an endpoint with the client's address is known;
    followed by ``(listed by namespace)`` if no controller lists it with a node."""
    frontend: _Text = ""
    """The dialled address; empty if unknown."""
    in_range: bool = False
    """Whether the Service port is a range of ports; ``frontend`` contains the dialled port."""
    via: _Text = ""
    """The load balancer that sent the client's address in a PROXY header; empty without one."""
    endpoint: _Text = ""
    """The endpoint that answered; empty if no endpoint did."""
    source: _Text = ""
    """The owner of the address that the endpoint sees: ``client`` or ``node``."""
    dials: _Count = 0
    """The number of endpoints that were dialled."""
    failed: Annotated[tuple[FailedDialFacts, ...], msgspec.Meta(max_length=_DIALS_MAX)] = ()
    """The dialled endpoints that didn't answer, each with its cause."""
    waited_s: _Seconds = 0.0
    """Seconds until an endpoint answered, or until now if none has; for a flow, seconds that it was
    held."""
    first_byte_s: _Seconds | None = None
    """Seconds until the endpoint's first byte, from its answer or the client's first byte,
    whichever came later; null before that byte."""
    received_bytes: _Count = 0
    """Bytes received from the client."""
    sent_bytes: _Count = 0
    """Bytes sent to the client."""
    duration_s: _Seconds = 0.0
    """Seconds since the connection was accepted."""
    ended_by: EndedBy = EndedBy.NONE
    """The side that ended the connection; empty while it is open."""
    cause: _Text = ""
    """How the connection ended, in the words of the connection log, or why it isn't visible."""
    count: _Count = 0
    """The number of omitted connections, or of dropped packets."""
    code: CauseCode | None = None
    """Why the client got no answer, or only part of one; null if neither, or if unknown."""

    def __post_init__(self) -> None:
        if self.kind == "flow" and (self.first_byte_s or 0) >= UNANSWERED_FLOW_S:
            self.code = self.code or CauseCode.ENDPOINT_ANSWERS_LATE
        # If an endpoint accepted the connection, only workers know the reason, and set the code.
        if self.code is not None or self.first_byte_s is not None:
            return
        if self.failed and self.endpoint in ("", self.failed[-1].endpoint):
            self.code = self.failed[-1].cause
        elif self.kind == "flow" and self.event is ConnectionEvent.ENDED and self.is_unanswered:
            self.code = CauseCode.ENDPOINT_SENDS_NOTHING

    @property
    def prefixes(self) -> Collection[str]:
        """The names by which a filter selects the Service port; empty without a Service port."""
        return ServicePortName(self.namespace, self.name, self.port).prefixes if self.name else ()

    @property
    def client_ip(self) -> str:
        return ip_of(self.client)

    @property
    def until_first_byte_s(self) -> float:
        """Seconds until the first byte or now; until the dial's answer if the client is silent."""
        if self.first_byte_s is not None:
            return self.waited_s + self.first_byte_s
        return self.duration_s if self.received_bytes or not self.endpoint else self.waited_s

    @property
    def is_saved(self) -> bool:
        """Whether the first dial failed and another endpoint answered."""
        has_answer = self.kind == "connection" or self.first_byte_s is not None
        return bool(self.failed and self.endpoint) and has_answer

    @property
    def is_unanswered(self) -> bool:
        """Whether the client sent bytes, and the endpoint sent none, or its first byte was late."""
        # A datagram can be empty, so a flow may have an answer without bytes.
        has_sent = self.sent_bytes > 0 or (self.kind == "flow" and self.first_byte_s is not None)
        is_late = self.code == CauseCode.ENDPOINT_ANSWERS_LATE
        return self.received_bytes > 0 and (is_late or not has_sent)

    @property
    def is_failed(self) -> bool:
        """Whether the client got no answer, or lost the connection without having ended it.

        A flow doesn't count as failed only because its endpoint is silent.
        Some protocols have no answers (syslog): an endpoint that sends nothing has served its
        client if it received everything, including the FIN, and closed the connection without a
        reset. A reset means that the endpoint hadn't read all data (RFC 1122, 4.2.2.13).
        """
        if self.event in (ConnectionEvent.REFUSED, ConnectionEvent.DROPPED):
            return True
        if self.event is not ConnectionEvent.ENDED:
            return False
        if self.cause not in _SOUND and self.ended_by is not EndedBy.CLIENT:
            return True
        if self.code is CauseCode.ENDPOINT_RESETS:
            return True
        if self.failed and not self.endpoint:
            return True
        is_by_client = self.cause == EndReason.COMPLETE and self.ended_by is EndedBy.CLIENT
        is_acknowledged = is_by_client and not self.sent_bytes
        return self.kind == "connection" and self.is_unanswered and not is_acknowledged

    def log_fields(self) -> dict[str, object]:
        fields: dict[str, object] = {name: getattr(self, name) for name in _LOGGED}
        fields["failed"] = ", ".join(map(str, self.failed))
        fields["code"] = self.code or ""
        for name in _ROUNDED:
            if (seconds := getattr(self, name)) is not None:
                fields[name] = round(seconds, 6)
        return fields


def ending(by: EndedBy, *, is_served: bool) -> ConnectionEvent:
    """Return the event for the end of a connection, which a client may end before it is served."""
    is_end = is_served or by is not EndedBy.PROXY
    return ConnectionEvent.ENDED if is_end else ConnectionEvent.REFUSED


def failed_dials(
    tried: Mapping[SocketAddress, CauseCode] | None, answered: SocketAddress | None = None
) -> tuple[FailedDialFacts, ...]:
    """Return the endpoints that didn't answer.

    Args:
        tried: The endpoints that failed; None if no endpoint failed.
        answered: The endpoint that failed after it had answered; None if no endpoint did.
    """
    failed = (tried or {}).items()
    return tuple(FailedDialFacts(str(one), code) for one, code in failed if one != answered)


class ConnectionFilter(msgspec.Struct, frozen=True, kw_only=True):
    """A selection of connections to watch, by client, Service and kind.

    Raises:
        ValueError: Workers, which receive the filter, would reject a value.
    """

    service: Annotated[str, msgspec.Meta(max_length=512)] = ""
    """``namespace``, ``namespace/name`` or ``namespace/name:port``; empty for all."""
    client: Annotated[str, msgspec.Meta(max_length=64)] = ""
    """An IP address in canonical form; empty for all."""
    failed: bool = False
    """Select failed connections; a connection of any selected kind matches."""
    saved: bool = False
    """Select connections whose first dial failed and that another endpoint served."""
    slow_s: Annotated[float, msgspec.Meta(ge=0, le=1e11)] | None = None
    """Select connections whose client waited at least this long for the first byte."""

    def __post_init__(self) -> None:
        # Check here, because msgspec checks values that it decodes, but not constructor arguments.
        for name, kind in _filter_types.items():
            try:
                msgspec.convert(getattr(self, name), kind)
            except msgspec.ValidationError as exc:
                raise ValueError(f"{name}: {exc}") from None

    def of(self, service: str) -> ConnectionFilter:
        return msgspec.structs.replace(self, service=service)

    @property
    def takes_all_kinds(self) -> bool:
        """Whether all connections are selected, not only failed, saved or slow connections."""
        return not self.failed and not self.saved and self.slow_s is None

    def takes(self, one: ConnectionFacts) -> bool:
        if not self.may_take(one.prefixes, one.client_ip):
            return False
        return (
            self.takes_all_kinds
            or (self.failed and one.is_failed)
            or (self.saved and one.is_saved)
            or (self.slow_s is not None and one.until_first_byte_s >= self.slow_s)
        )

    def may_take(
        self, prefixes: Collection[str], client_ip: str, *, is_plain: bool = False
    ) -> bool:
        """Return whether a connection may be selected, given only some of its facts.

        A connection is plain if its first dial served the client and it ended without a failure.
        """
        if not self.takes_service(prefixes):
            return False
        if self.client and client_ip != self.client:
            return False
        return not is_plain or self.slow_s is not None or self.takes_all_kinds

    def takes_service(self, prefixes: Collection[str]) -> bool:
        """Return whether a Service port is selected, by its :attr:`.ServicePortName.prefixes`."""
        return not self.service or self.service in prefixes


_filter_types = get_type_hints(ConnectionFilter, include_extras=True)


class LeftOut(NamedTuple):
    """The number of connections that a filter may select, but that didn't fit into a ring."""

    wanted: ConnectionFilter
    number: _Count


_decoder = msgspec.json.Decoder(ConnectionFacts)


def read_connection(line: bytes | str) -> ConnectionFacts:
    """Parse a line of a proxy's stream; the proxy may be older or newer.

    Raises:
        ValueError: The line isn't a connection.
    """
    return _decoder.decode(line)
