"""Words the mistakes in a Service's own objects, once: those of files and of the API's objects."""

from __future__ import annotations

from ..model import Cause, CauseCode, ServiceKey, ServicePort, SliceKey
from ..model.reading import LABEL_SERVICE_NAME
from .causes import SLICES_OF

_KEPT = "Correct it: an object that was valid before keeps its last form until then"
HEALTH_CHECK_FAILS = (
    "Load balancers may treat this node as one without endpoints; it is retried every second"
)
"""What a health check node port that doesn't answer means."""


def rejected(object_: str, line: str) -> Cause:
    """Return that an object about a Service isn't used as it is written.

    Args:
        object_: ``Service shop/web``; empty if the line says it, or it is used in part.
        line: The mistake, with its place.
    """
    if not object_:
        return Cause(CauseCode.NOT_FOLLOWED, line)
    return Cause(CauseCode.NOT_FOLLOWED, f"{object_} is rejected: {line}", object_, _KEPT)


def slice_rejected(slice_: str, line: str, *, unnamed_for: str = "") -> Cause:
    """Return that a Service has no endpoint because its slice is rejected.

    Args:
        slice_: ``EndpointSlice shop/web-1``.
        line: The mistake, with its place.
        unnamed_for: The Service whose name is in that of the slice, which names none; empty: the
            slice names its Service.
    """
    which, hint = slice_, "Correct it: the Service has no other one"
    if unnamed_for:
        which = f"{slice_}, by its name a slice of it,"
        hint = f"If it is one, give it the label {LABEL_SERVICE_NAME}: {unnamed_for}"
    return Cause(CauseCode.NO_SLICE, f"{which} is rejected: {line}", slice_, hint)


def object_kept(line: str) -> Cause:
    """Return that a removed object of a Service is kept.

    Args:
        line: The first mistake of its file, with its place.
    """
    return Cause(
        CauseCode.NOT_FOLLOWED,
        "an object of it was removed from its file, and is kept while the file has mistakes",
        hint=f"Repair that file, first at {line.partition(': ')[0]}",
    )


def health_check_fails(problem: str) -> Cause:
    """Return that load balancers get no answer about a Service, though clients are served."""
    return Cause(CauseCode.NOT_FOLLOWED, problem, hint=HEALTH_CHECK_FAILS)


def port_unnumbered(service: ServiceKey, port: ServicePort, of: SliceKey) -> Cause:
    """Return that a slice has the Service port without its number."""
    which = f'port "{port.name}"' if port.name else "the unnamed port"
    return Cause(
        CauseCode.PORT_NAME_MISSING,
        f"{which} of EndpointSlice {of} has no number",
        f"{SLICES_OF} {service}",
        "Write its number into the EndpointSlice, which means all ports without it",
    )
