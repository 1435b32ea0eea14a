"""The page about one incident: since when, what clients met, which Services, and what to do.

Rule 1: it shows one moment, and needs no script.
Rule 2: its size is bounded, and it states how much it leaves out.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..diagnosis.incidents import Incidents
from ..facts import IncidentFacts, PortFacts
from .incident_words import headline
from .page import render_template
from .sampling import Sample
from .selection import Selection

PORTS_SHOWN = 200
ENDPOINTS_SHOWN = 100


def render_incident(sample: Sample, id_: str) -> bytes | None:
    """Return the page as HTML in UTF-8; None if there is no such incident, or none any more."""
    known = Incidents(sample.view)
    incident = known.find(id_)
    return None if incident is None else _render(sample, incident, known.ports(incident))


def render_no_incident(sample: Sample) -> bytes:
    """Return the page about an incident that is over."""
    return _render(sample, None, ())


def _render(sample: Sample, incident: IncidentFacts | None, ports: Sequence[PortFacts]) -> bytes:
    node = sample.view.node or "this node"
    heading = headline(incident, sample.now) if incident else "This is over"
    addresses = incident.endpoints if incident else ()
    nodes = {one.address: one.node for port in ports for one in port.endpoints}
    return render_template(
        "incident",
        incident=incident,
        heading=heading,
        title=f"{heading}: {node}, userspace-proxy",
        node=node,
        now=sample.now,
        endpoints=[(one, nodes.get(one, "")) for one in addresses[:ENDPOINTS_SHOWN]],
        more_endpoints=len(addresses[ENDPOINTS_SHOWN:]),
        ports=[(port, _link(port)) for port in ports[:PORTS_SHOWN]],
        more_ports=len(ports[PORTS_SHOWN:]),
    )


def _link(port: PortFacts) -> str:
    """Return the address of the page about the Service."""
    link = Selection().link(q=f"service:{port.namespace}/{port.service}")
    return f"../{link.removeprefix('./')}"
