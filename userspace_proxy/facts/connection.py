"""What is known of one connection or flow, for the connection log and all that watch connections.

    dataplane ──ConnectionFacts──┬▶ connection log: at the end, a line
                                 └▶ who watches: a line of JSON, of text, of the page

Rule 1: a field here is one of the JSON; fields are only added, and have defaults.
Rule 2: what is watched is filtered by the same value everywhere: in workers, and for each watcher.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Mapping
from typing import Annotated, NamedTuple, TypedDict, get_type_hints

import msgspec

from ..causes.cause import CauseCode
from ..model import PortKey, ServicePortName, SocketAddress, ip_of
from ..model.connection_ends import EndedBy, EndReason

_Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
_Seconds = Annotated[float, msgspec.Meta(ge=-1e11, le=1e11)]
# Workers are believed no more than this: names and addresses are shorter.
_Text = Annotated[str, msgspec.Meta(max_length=1024)]
_DIALS_MAX = 64
# That are watched at a time: more than there are streams.
FILTERS_MAX = 64


class ConnectionEvent(enum.StrEnum):
    """What a line about connections reports."""

    ENDED = "ended"
    """It ended after an endpoint had served it, or its client gave up."""
    SAVED = "saved"
    """Its first dial failed, and another endpoint answered; it goes on."""
    HELD = "held"
    """It waits until an endpoint can take it."""
    REFUSED = "refused"
    """No endpoint served it."""
    DROPPED = "dropped"
    """Packets of clients were dropped, of which only the number is known."""
    LEFT_OUT = "left-out"
    """Connections happened that this watcher was too slow for, or that were too many."""
    UNSEEN = "unseen"
    """Connections of a Service port can't be seen."""


_LOGGED = (
    "kind", "service", "client", "frontend", "via", "endpoint", "source", "dials", "failed",
    "waited_s", "first_byte_s", "received_bytes", "sent_bytes", "duration_s", "ended_by", "cause",
    "code",
)  # fmt: skip
"""The fields of a line in the connection log."""
_ROUNDED = ("waited_s", "first_byte_s", "duration_s")

_SOUND = frozenset(end for end in EndReason if end.is_sound)


class PortFields(TypedDict, total=False):
    """The fields of a record, or of an edge, that name its Service port, if it has one."""

    service: str
    namespace: str
    name: str
    port: str


def port_fields(key: PortKey) -> PortFields:
    """Return those fields."""
    namespace, name, port = key.name
    return {"service": str(key), "namespace": namespace, "name": name, "port": port}


class FailedDialFacts(msgspec.Struct, frozen=True, gc=False):
    """An endpoint that was dialled without effect."""

    endpoint: _Text = ""
    """With its port."""
    cause: CauseCode = CauseCode.ENDPOINT_FAILS

    def __str__(self) -> str:
        return f"{self.endpoint} {self.cause}"


class ConnectionFacts(msgspec.Struct, kw_only=True):
    """One connection or flow at one moment: at its end, or before it."""

    event: ConnectionEvent = ConnectionEvent.ENDED
    """What happened."""
    at: _Seconds = 0.0
    """Unix time at which it did."""
    kind: _Text = "connection"
    """``connection`` (TCP) or ``flow`` (UDP)."""
    service: _Text = ""
    """The Service port, with its family and side where it has several: ``shop/web:http (IPv6,
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
    """The client's pod, ``namespace/name``, if its name is known: that of an endpoint."""
    frontend: _Text = ""
    """The address that the client dialled; empty if it isn't known."""
    via: _Text = ""
    """The load balancer that announced the client by a PROXY header; empty without one."""
    endpoint: _Text = ""
    """The endpoint that answered; empty if none did."""
    source: _Text = ""
    """Whose address the endpoint sees: ``client`` or ``node``."""
    dials: _Count = 0
    """How many endpoints were dialled."""
    failed: Annotated[tuple[FailedDialFacts, ...], msgspec.Meta(max_length=_DIALS_MAX)] = ()
    """Those of them that didn't answer, each with its cause."""
    waited_s: _Seconds = 0.0
    """Seconds until an endpoint answered, or until now."""
    first_byte_s: _Seconds | None = None
    """Seconds from the endpoint's answer, or the client's first byte if that came later, to the
    endpoint's first byte; null before it."""
    received_bytes: _Count = 0
    """From the client."""
    sent_bytes: _Count = 0
    """To the client."""
    duration_s: _Seconds = 0.0
    """Seconds since it was accepted."""
    ended_by: EndedBy = EndedBy.NONE
    """The side that ended it; empty while it goes on."""
    cause: _Text = ""
    """How it ended, in the words of the connection log, or why it can't be seen."""
    count: _Count = 0
    """How many connections were left out, or packets dropped."""
    code: CauseCode | None = None
    """Why its client got no answer; null if it got one, or nothing is known."""

    def __post_init__(self) -> None:
        # Workers state what only they know: how a connection ended that an endpoint had accepted.
        if self.code is not None or self.first_byte_s is not None:
            return
        if self.failed and self.endpoint in ("", self.failed[-1].endpoint):
            self.code = self.failed[-1].cause
        elif self.kind == "flow" and self.event is ConnectionEvent.ENDED and self.is_unanswered:
            self.code = CauseCode.ENDPOINT_SENDS_NOTHING

    @property
    def scopes(self) -> Collection[str]:
        """Those of its Service port; empty if it is about none."""
        return ServicePortName(self.namespace, self.name, self.port).scopes if self.name else ()

    @property
    def client_ip(self) -> str:
        return ip_of(self.client)

    @property
    def until_first_byte_s(self) -> float:
        """How long the client waited for the first byte; until now if it asked and got none."""
        if self.first_byte_s is not None:
            return self.waited_s + self.first_byte_s
        return self.duration_s if self.received_bytes or not self.endpoint else self.waited_s

    @property
    def is_saved(self) -> bool:
        """Whether its first dial failed, and another endpoint answered."""
        has_answer = self.kind == "connection" or self.first_byte_s is not None
        return bool(self.failed and self.endpoint) and has_answer

    @property
    def is_unanswered(self) -> bool:
        """Whether its client has sent bytes, and its endpoint none, or only after it had left."""
        # A datagram may be empty.
        has_sent = self.sent_bytes > 0 or (self.kind == "flow" and self.first_byte_s is not None)
        is_late = self.code == CauseCode.ENDPOINT_ANSWERS_LATE
        return self.received_bytes > 0 and (is_late or not has_sent)

    @property
    def is_failed(self) -> bool:
        """Whether its client didn't get what it asked for, as far as that is visible.

        An endpoint that sends nothing has served its client if it got everything, the FIN included,
        and then closed without a reset, which would mean that it hadn't read it all (RFC 1122,
        4.2.2.13). Some protocols have no answers (syslog).
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
    """Return the event of an end: a client that no endpoint serves may end it, too."""
    is_end = is_served or by is not EndedBy.PROXY
    return ConnectionEvent.ENDED if is_end else ConnectionEvent.REFUSED


def failed_dials(
    tried: Mapping[SocketAddress, CauseCode] | None, answered: SocketAddress | None = None
) -> tuple[FailedDialFacts, ...]:
    """Return the endpoints that didn't answer.

    Args:
        tried: Those that failed; None: none did.
        answered: The one that failed after it had answered; None: none did.
    """
    failed = (tried or {}).items()
    return tuple(FailedDialFacts(str(one), code) for one, code in failed if one != answered)


class ConnectionFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which connections are watched: those of a client and a Service, of which some kinds.

    Raises:
        ValueError: A value is one that workers, which are sent the filter, reject.
    """

    service: Annotated[str, msgspec.Meta(max_length=512)] = ""
    """``namespace``, ``namespace/name`` or ``namespace/name:port``; empty for all."""
    client: Annotated[str, msgspec.Meta(max_length=64)] = ""
    """An IP address in canonical form; empty for all."""
    failed: bool = False
    """Those that failed. With ``saved`` or ``slow_s``, those that any of them selects."""
    saved: bool = False
    """Those whose first dial failed and that another endpoint answered."""
    slow_s: Annotated[float, msgspec.Meta(ge=0, le=1e11)] | None = None
    """Those whose client waited at least this long for the first byte."""

    def __post_init__(self) -> None:
        # msgspec checks what it decodes, and not what is constructed.
        for name, kind in _filter_types.items():
            try:
                msgspec.convert(getattr(self, name), kind)
            except msgspec.ValidationError as exc:
                raise ValueError(f"{name}: {exc}") from None

    def of(self, service: str) -> ConnectionFilter:
        return msgspec.structs.replace(self, service=service)

    @property
    def takes_all_kinds(self) -> bool:
        """Whether it takes connections that neither failed, were saved nor were slow, too."""
        return not self.failed and not self.saved and self.slow_s is None

    def takes(self, one: ConnectionFacts) -> bool:
        if not self.may_take(one.scopes, one.client_ip):
            return False
        return (
            self.takes_all_kinds
            or (self.failed and one.is_failed)
            or (self.saved and one.is_saved)
            or (self.slow_s is not None and one.until_first_byte_s >= self.slow_s)
        )

    def may_take(self, scopes: Collection[str], client_ip: str, *, is_plain: bool = False) -> bool:
        """Return whether a connection of which only this is known may be watched.

        It is plain if its client was served at the first dial, and it ended well.
        """
        if not self.takes_service(scopes):
            return False
        if self.client and client_ip != self.client:
            return False
        return not is_plain or self.slow_s is not None or self.takes_all_kinds

    def takes_service(self, scopes: Collection[str]) -> bool:
        """Return whether a Service port with these scopes is watched."""
        return not self.service or self.service in scopes


_filter_types = get_type_hints(ConnectionFilter, include_extras=True)


class LeftOut(NamedTuple):
    """Connections that one filter may have taken, and for which there was no room."""

    wanted: ConnectionFilter
    number: _Count


_decoder = msgspec.json.Decoder(ConnectionFacts)


def read_connection(line: bytes | str) -> ConnectionFacts:
    """Read a line of the stream of a proxy, also of an older or a newer one.

    Raises:
        ValueError: It is none.
    """
    return _decoder.decode(line)
