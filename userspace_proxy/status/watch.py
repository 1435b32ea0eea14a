"""What changes in the answer of ``/api/v1/status``, as lines of JSON.

    sample ──▶ the answer ──▶ Changes: what differs ──▶ client

Rule 1: the first line is the whole answer, so a client that connects again is up to date.
Rule 2: a later line contains ``now``, each other field that differs, and of ``ports`` only those
that differ; ``gone`` names those that aren't selected any more.
"""

from __future__ import annotations

from ..facts import PortFacts, StatusFacts
from .answers import encode_answer

_PORT_KEY = ("namespace", "service", "port", "family", "side")
_NOT_COMPARED = ("now", "ports")

_Id = tuple[str, ...]


class Changes:
    """What one client has to learn."""

    def __init__(self) -> None:
        self._sent: StatusFacts | None = None
        self._ports: dict[_Id, PortFacts] = {}

    def line(self, answer: StatusFacts) -> bytes:
        """Return the line that brings the client up to date; an empty one if it is."""
        before, self._sent = self._sent, answer
        known, self._ports = self._ports, {_id(port): port for port in answer.ports}
        if before is None:
            return encode_answer(answer)
        changes: dict[str, object] = {
            name: getattr(answer, name)
            for name in answer.__struct_fields__
            if name not in _NOT_COMPARED and getattr(answer, name) != getattr(before, name)
        }
        ports = [port for key, port in self._ports.items() if _differs(known.get(key), port)]
        gone = [dict(zip(_PORT_KEY, key, strict=True)) for key in known if key not in self._ports]
        if ports:
            changes["ports"] = ports
        if gone:
            changes["gone"] = gone
        return encode_answer({"now": answer.now, **changes}) if changes else b"\n"


def _differs(before: PortFacts | None, port: PortFacts) -> bool:
    return before is not port and before != port


def _id(port: PortFacts) -> _Id:
    return port.namespace, port.service, port.port, port.family, port.side
