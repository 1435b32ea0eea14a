"""Words what is known of an endpoint beyond the error of a dial.

    it sends no byte, or late · its link has no such host · it failed a while ago · it has ended

Rule 1: a sentence in the present tense is about what was tried a moment ago (``in_the_past``).
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from ..model import Cause, CauseCode, SocketAddress
from ..model.annotations import DOMAIN
from ..model.node_network import NextHop
from .cause_rows import LOST_ON_THE_WAY, row_of
from .loss_causes import lost_before
from .route_causes import shows_own_route


class DroppedBy(NamedTuple):
    """Which chain of another program drops packets to or from an address on this node."""

    what: str
    """The chain, with its hook and priority, and which packets, as the end of a sentence."""


Obstacle = NextHop | DroppedBy
"""What this node's kernel knows about packets that an endpoint doesn't answer: no host is at its
next hop, or they are dropped on their way out."""

UNANSWERED_S = 1
"""Seconds without a byte after which a client that leaves has given up, and before which an
endpoint that leaves has ended the connection at once."""
UNANSWERED_FLOW_S = 2
"""Seconds without a datagram after which a UDP flow counts as unanswered. Names that a DNS server
has to ask others for take a second; most resolvers wait for 5 (resolv.conf(5), ``timeout``)."""

BEFORE = "; before, "
"""Between what an endpoint does now, and how it failed until then."""
NO_DATAGRAM_HINT = (
    "The endpoint may drop what it gets, answer from another address than it was asked at, or be "
    "kept by a network policy or firewall from answering; endpoints that only receive (statsd, "
    "syslog) send nothing, too"
)


def sends_nothing(endpoint: SocketAddress) -> Cause:
    """Return the cause of connections that an endpoint accepts, and whose clients give up."""
    return Cause(
        CauseCode.ENDPOINT_SENDS_NOTHING,
        f"{endpoint} accepts connections and sends nothing",
        str(endpoint),
        "The program may hang, or wait for something else first: look at the pod's log and load; "
        f"{LOST_ON_THE_WAY}; endpoints that only receive (syslog, graphite) send nothing, too",
    )


def answers_late(endpoint: SocketAddress, waited_s: float, *, is_at_end: bool = False) -> Cause:
    """Return the cause of connections whose clients leave before the endpoint's first byte.

    Args:
        waited_s: How long the last one took.
        is_at_end: Each time it came right after the client's end.
    """
    if is_at_end:
        sentence = f"{endpoint} answers right after its clients have left, and not before"
        hint = (
            "The program most likely waits for the end of its input: compare the protocol that "
            "client and program speak (TLS or not), and the port; if it is meant to read to the "
            "end, let clients close only their side for sending; if its log shows that it is slow, "
            "raise the clients' time-out"
        )
    else:
        sentence = f"{endpoint} answers after its clients have left"
        hint = (
            "The clients' time-out is most likely shorter than the answer takes: raise it, or find "
            "out why the program is slow, from its log and load; one that answers only what has "
            "ended is late, too"
        )
    return Cause(
        CauseCode.ENDPOINT_ANSWERS_LATE,
        f"{sentence}: its first byte took {waited_s:.1f} s",
        str(endpoint),
        hint,
    )


def answers_flows_late(endpoint: SocketAddress) -> Cause:
    """Return the cause of UDP flows that an endpoint answered after their clients may have left."""
    return Cause(
        CauseCode.ENDPOINT_ANSWERS_LATE,
        f"{endpoint} answered late",
        str(endpoint),
        f"Clients that wait for {UNANSWERED_FLOW_S} s or less get nothing; most resolvers wait for "
        "5 s. Find out from the log and load of the program why it is slow: a DNS server may wait "
        "for one that it asks",
    )


def no_datagram(endpoint: SocketAddress) -> Cause:
    """Return the cause of UDP flows that an endpoint doesn't answer."""
    return Cause(
        CauseCode.ENDPOINT_SENDS_NOTHING,
        f"{endpoint} sends no datagram back",
        str(endpoint),
        NO_DATAGRAM_HINT,
    )


def owes_answers(endpoint: SocketAddress) -> Cause:
    """Return the cause of connections that ended after the endpoint had answered, and then not."""
    return Cause(
        CauseCode.ENDPOINT_SENDS_NOTHING,
        f"{endpoint} answered before, and then no more",
        str(endpoint),
        "The program may hang at some requests, wait for something else, or take longer than its "
        "clients wait: read its log; where clients have the last word, as those that only "
        "acknowledge messages or send measurements, this is as it should be",
    )


def silent_since(cause: Cause, failed: Cause) -> Cause:
    """Return the cause of flows without an answer to an endpoint that failed otherwise before.

    A router without a way back to the datagram's source can't report that it has none forward.
    """
    is_unreachable = failed.code is CauseCode.ENDPOINT_UNREACHABLE
    return replace(
        cause,
        sentence=f"{cause.sentence}{BEFORE}{_past(failed)}",
        hint=failed.hint if is_unreachable else cause.hint,
    )


def denies(endpoint: SocketAddress, client: str) -> Cause:
    """Return the cause of dials that only fail from the addresses of clients.

    Args:
        client: The last one.
    """
    return Cause(
        CauseCode.ENDPOINT_DENIES,
        f"{endpoint} answers this node, but not {client}",
        str(endpoint),
        "Look for a NetworkPolicy, or another firewall at the pod, that denies this client: the "
        "endpoint sees the client's own address; if the pod replies through a second interface "
        "(Multus, macvlan), past this node, annotate the Service with "
        f"{DOMAIN}preserve-client-address: never",
    )


def excludes(endpoint: SocketAddress, client: str) -> Cause:
    """Return the cause of connections of some clients that an endpoint accepts and ends.

    Args:
        client: The last one.
    """
    return Cause(
        CauseCode.ENDPOINT_DENIES,
        f"{endpoint} ends connections of {client} without a byte, and answers others",
        str(endpoint),
        "Look for an access rule of the program that denies this client (pg_hba.conf, hosts.deny, "
        "an allow list): it must admit the address that the program sees, the client's own or this "
        "node's; or this client alone speaks TLS or another protocol: the program's log shows it",
    )


def cuts_off(endpoint: SocketAddress) -> Cause:
    """Return the cause of connections that an endpoint answers, and then resets."""
    return Cause(
        CauseCode.ENDPOINT_CUTS_OFF,
        f"{endpoint} resets connections while or after it answers",
        str(endpoint),
        "Answers may be incomplete: read the log of the pod, which may crash or give up while it "
        f"answers; {LOST_ON_THE_WAY}; some programs reset every connection that they have finished",
    )


def no_host(endpoint: SocketAddress, hop: NextHop | None = None) -> Cause:
    """Return the cause of failed dials of an address whose next hop no host answers for.

    Args:
        hop: None if it isn't known.
    """
    if hop is not None and hop.gateway:
        return Cause(
            CauseCode.ENDPOINT_NO_HOST,
            f"no host answers for {hop.gateway}, the gateway to {endpoint.ip}, on {hop.interface}",
            str(endpoint),
            "The host with that address, often the pod's node, is down or has left, or the route "
            f"is an old one: `ip route get {endpoint.ip}` shows it",
        )
    where = f" on {hop.interface}" if hop is not None else ", or for the gateway to it"
    return Cause(
        CauseCode.ENDPOINT_NO_HOST,
        f"no host answers for {endpoint.ip}{where}",
        str(endpoint),
        "No pod has this address any more, or it is on another link: compare it with those of the "
        "pods, and look at the pod's node",
    )


def dropped_here(endpoint: SocketAddress, by: DroppedBy) -> Cause:
    """Return the cause of dials whose packets, or answers, are dropped on this node."""
    return Cause(
        CauseCode.ENDPOINT_SILENT,
        f"{endpoint} does not answer: {by.what}",
        str(endpoint),
        "Accept them in that chain, or delete what drops them",
    )


EXPECTS_NO_HEADER = (
    "This proxy sends a PROXY header before the client's bytes (annotation "
    f"{DOMAIN}proxy-protocol), which the program may not expect: let it, or remove the annotation. "
)
"""What to do before anything else where that is so, if clients get no answer."""


def with_header(cause: Cause) -> Cause:
    """Return the cause of a failing endpoint that gets a PROXY header, which may be the reason."""
    if not row_of(cause.code).may_be_header:
        return cause
    sentence = f"{cause.sentence} (this proxy sends a PROXY header first)"
    return replace(cause, sentence=sentence, hint=f"{EXPECTS_NO_HEADER}{cause.hint}")


def about_to_vanish(namespace: str, count: int) -> Cause:
    """Return that a Service port's usable endpoints all terminate."""
    are = "it is" if count == 1 else "all are"
    return Cause(
        CauseCode.NOT_READY,
        f"{are} terminating and about to vanish, and no ready one is used here",
        hint=f"kubectl get pods -n {namespace}",
    )


def in_the_past(cause: Cause) -> Cause:
    """Return the cause of an endpoint that failed a while ago, and that nothing has tried since."""
    comma = "," if cause.code is CauseCode.ENDPOINT_DENIES else ""
    return replace(cause, sentence=f"{_past(cause)}{comma} when it was last tried")


def at_times(cause: Cause, host: str = "") -> Cause:
    """Return the cause of an endpoint that failed a moment ago, and has answered since.

    Args:
        host: The name that it was found by; empty for an address, as of pods.
    """
    hint = cause.hint
    if row_of(cause.code).is_of_now:
        hint = f"If it fails again: {hint[:1].lower()}{hint[1:]}"
    if cause.code is CauseCode.ENDPOINT_REFUSES:
        where = f" on {host}" if host else ""
        show = "its log shows" if host else "kubectl logs --previous POD shows"
        hint = (
            f"It answers at times: its program{where} may end again and again ({show} why), or "
            "have just begun to listen; a readiness probe keeps clients away until it does. Or a "
            "firewall rejects some connections, as those above a limit"
        )
    elif cause.code is CauseCode.ENDPOINT_RESETS:
        log = f"the log of the program on {host}" if host else "kubectl logs POD"
        hint = (
            f"It has answered other connections: {log} shows why not these (it ends again and "
            "again, is at a limit of its own, or some clients speak TLS or another protocol); "
            f"{LOST_ON_THE_WAY}"
        )
    return replace(cause, sentence=_past(cause), hint=hint)


def _past(cause: Cause) -> str:
    if cause.code is CauseCode.ENDPOINT_NO_HOST:
        return cause.sentence.replace("answers", "answered")
    if cause.code is CauseCode.ENDPOINT_DENIES:
        return cause.sentence.replace("answers", "answered").replace(" ends ", " ended ")
    if cause.code is CauseCode.PACKETS_LOST:
        return lost_before(cause.sentence)
    return row_of(cause.code).past.format(cause.object)


def has_ended(cause: Cause) -> Cause:
    """Return the cause of an endpoint that refuses connections, and that was reached before."""
    if cause.code is not CauseCode.ENDPOINT_REFUSES:
        return cause
    hint = (
        "Its port was open before, so its targetPort is right: its program has ended (kubectl "
        "describe pod POD and kubectl logs --previous POD show why), or a firewall rejects "
        "connections now"
    )
    return replace(cause, hint=hint)


def outside(cause: Cause, ip: str, host: str) -> Cause:
    """Return the cause of an endpoint by name, which is no pod, with a remedy for that.

    Args:
        host: Its name.
    """
    hint = row_of(cause.code).outside
    if not hint or shows_own_route(cause):
        return cause
    return replace(cause, hint=hint.format(ip=ip, host=host))
