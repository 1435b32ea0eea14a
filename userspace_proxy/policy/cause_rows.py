"""One row for each cause: all that depends on its code alone.

Rule 1: whatever must be known of each cause is a column here, never a list of codes elsewhere.
Rule 2: texts have places: ``{}`` for what the cause is about, ``{host}`` and ``{ip}`` for an
endpoint by name, ``{namespace}``, ``{name}``, ``{ip}`` and ``{pod}`` in the words of commands.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..model import CauseCode

LOST_ON_THE_WAY = (
    "a firewall on the way that drops or resets data, or a smaller MTU there, looks the same"
)
"""What happens behind the handshake, as seen from this node."""
_SLICES = "get endpointslices -n {namespace} -l kubernetes.io/service-name={name} -o yaml"
_SELECTOR = "edit service -n {namespace} {name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class CauseRow:
    """What follows from the code of a cause; each default is what most causes have."""

    past: str = ""
    """Its sentence in the past tense; empty: its words depend on more than what it is about."""
    outside: str = ""
    """The remedy for an endpoint by name, which is no pod; empty: the same as for pods."""
    is_of_now: bool = False
    """Its remedy looks at what is so at this moment."""
    is_dial: bool = False
    """A dial fails with it, so it is counted of each endpoint."""
    is_slow: bool = False
    """Such a dial lasts until its time is up."""
    serves: bool = False
    """Clients get to the endpoint in spite of it."""
    accepts: bool = False
    """The endpoint accepts the connections that it is the cause of."""
    is_unanswered: bool = False
    """Clients leave without a byte: an observation, not a failure."""
    may_be_header: bool = False
    """A PROXY header that the program doesn't expect looks the same."""
    is_of_address: bool = False
    """Some addresses of the Service port aren't served, perhaps all."""
    is_of_pods: bool = False
    """The pods themselves show more."""
    kubectl: str = ""
    """Words after ``kubectl`` that show more; empty: for an endpoint, the pod with its address."""
    kubectl_of_pod: str = ""
    """The same for one pod that was named."""
    on_node: str = ""
    """A command on the node that shows more."""


_PLAIN = CauseRow()
ROWS: Mapping[CauseCode, CauseRow] = {
    CauseCode.ENDPOINT_REFUSES: CauseRow(
        past="{} refused connections",
        outside="Compare the port of the endpoint with the one on which the program on {host} "
        "listens; if they agree, a firewall rejects packets to it",
        is_dial=True,
    ),
    CauseCode.ENDPOINT_SILENT: CauseRow(
        past="{} did not answer",
        outside="See whether {host} answers other machines, and whether a firewall on this node "
        "(`nft list ruleset`) or on the way drops packets to it",
        is_of_now=True,
        is_dial=True,
        is_slow=True,
    ),
    CauseCode.ENDPOINT_UNREACHABLE: CauseRow(
        past="{} was unreachable",
        outside="`ip route get {ip}` on this node shows the route; if it is right, a firewall on "
        "the way to {host} rejects packets from this node",
        is_of_now=True,
        is_dial=True,
    ),
    CauseCode.ENDPOINT_NO_HOST: CauseRow(
        outside="Compare the address with that of {host}: its name may lead to a former one",
        is_of_now=True,
        is_dial=True,
        is_slow=True,
    ),
    CauseCode.ENDPOINT_RESETS: CauseRow(
        past="{} accepted connections and ended them without answering",
        outside="Read the log of the program on {host}: it may expect TLS or another protocol, or "
        f"refuse this node's address; {LOST_ON_THE_WAY}",
        is_dial=True,
        accepts=True,
        may_be_header=True,
    ),
    CauseCode.FAULT_ON_PURPOSE: CauseRow(is_dial=True, serves=True, accepts=True),
    CauseCode.ENDPOINT_FAILS: CauseRow(
        past="{} could not be dialled", is_of_now=True, is_dial=True
    ),
    CauseCode.ENDPOINT_SENDS_NOTHING: CauseRow(
        past="{} sent nothing in time",
        outside="The program on {host} may hang, or wait for something else first; "
        f"{LOST_ON_THE_WAY}; endpoints that only receive (syslog, graphite) send nothing, too",
        accepts=True,
        is_unanswered=True,
        may_be_header=True,
    ),
    CauseCode.ENDPOINT_ANSWERS_LATE: CauseRow(
        past="{} answered after its clients had left",
        accepts=True,
        is_unanswered=True,
        may_be_header=True,
    ),
    CauseCode.ENDPOINT_DENIES: CauseRow(
        outside="Look for a firewall at {host}, or an access rule of its program, that denies "
        "this client: the host sees the client's own address where it can",
        serves=True,
        accepts=True,
        kubectl="get networkpolicies -n {namespace} -o yaml",
    ),
    CauseCode.ENDPOINT_CUTS_OFF: CauseRow(
        past="{} reset connections while or after it answered",
        outside="Answers may be incomplete: read the log of the program on {host}, which may "
        f"crash or give up while it answers; {LOST_ON_THE_WAY}; some programs reset every "
        "connection that they have finished",
        serves=True,
        accepts=True,
        may_be_header=True,
    ),
    CauseCode.PACKETS_LOST: CauseRow(accepts=True),
    CauseCode.ENDPOINT_NOT_ALLOWED: CauseRow(kubectl=_SLICES),
    CauseCode.NAME_NOT_ALLOWED: _PLAIN,
    CauseCode.NAME_UNRESOLVED: _PLAIN,
    CauseCode.NO_SLICE: CauseRow(is_of_pods=True, kubectl=_SLICES),
    CauseCode.SLICE_EMPTY: CauseRow(
        is_of_pods=True,
        kubectl="get pods -n {namespace} --show-labels",
        kubectl_of_pod=_SELECTOR,
    ),
    CauseCode.SLICE_ELSEWHERE: CauseRow(
        kubectl="get endpointslices -A -l kubernetes.io/service-name={name}"
    ),
    CauseCode.SLICE_ORPHANED: CauseRow(kubectl="get endpointslices -n {namespace} --show-labels"),
    CauseCode.PORT_NAME_MISSING: CauseRow(
        is_of_pods=True, kubectl=_SLICES, kubectl_of_pod=_SELECTOR
    ),
    CauseCode.NOT_READY: CauseRow(
        is_of_pods=True,
        kubectl="describe pods -n {namespace}",
        kubectl_of_pod="describe pod -n {namespace} {pod}",
    ),
    CauseCode.NOT_LOCAL: CauseRow(kubectl="get pods -n {namespace} -o wide"),
    CauseCode.NOT_FOR_THIS_NODE: CauseRow(kubectl=_SLICES),
    CauseCode.SOURCE_DENIED: _PLAIN,
    CauseCode.NO_PROXY_HEADER: _PLAIN,
    CauseCode.HOP_LIMIT: _PLAIN,
    CauseCode.EXTERNAL_IP_OFF: CauseRow(is_of_address=True),
    CauseCode.ADDRESS_TAKEN: CauseRow(is_of_address=True, kubectl="get services -A -o wide"),
    CauseCode.NOT_OURS: _PLAIN,
    CauseCode.NOT_FOLLOWED: _PLAIN,
    CauseCode.TOO_MANY_ENDPOINTS: _PLAIN,
    CauseCode.TOO_MANY_FRONTENDS: _PLAIN,
    CauseCode.NOT_LISTENING: CauseRow(on_node="ss -Hlntup"),
    CauseCode.OUT_OF_PORTS: _PLAIN,
    CauseCode.OUT_OF_CLIENT_PORTS: _PLAIN,
    CauseCode.FIREWALL_DROPS: _PLAIN,
    CauseCode.SOURCE_AWAY: _PLAIN,
}
"""The row of each cause."""
DIAL_CAUSES = tuple(code for code, row in ROWS.items() if row.is_dial)
"""Why dials fail; the last one is of all other errors."""


def row_of(code: CauseCode) -> CauseRow:
    """Return the row of a cause; that of a newer proxy's cause has every default."""
    return ROWS.get(code, _PLAIN)
