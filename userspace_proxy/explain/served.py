"""Words how the clients of a Service are served where no step of their path is wrong.

Rule 1: the present tense is for clients that have been answered in the last minute.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..facts import PortFacts
from ..facts.units import capitalised, seconds_in_words, times_in_words
from ..model import Cause, CauseCode
from ..status.no_byte import with_age
from ..status.path_words import led_in_words
from ..status.port_state import served_in_words, serving_in_words
from ..status.waits import is_silent
from .dial_steps import Dials
from .reading import Subject


def served_sentence(ports: Sequence[PortFacts], subject: Subject, dials: Dials) -> str:
    """Return how clients are served where no step of their path is wrong."""
    if not ports:
        return f"{subject.service} has no ports"
    expected = [port for port in ports if port.state.word.expected]
    if expected:
        return expected[0].state.sentence
    served = _by_endpoints(ports, subject, dials)
    policies = [policy_drops(port) for port in ports]
    dropped = {port.turned_away[0]: False for port in ports if port.turned_away}
    dropped |= {cause: True for cause in policies if cause is not None}
    are = "would be" if subject.node is None else "are"
    for cause, is_from_outside in dropped.items():
        # The cause of a policy is why, that of a source range also who.
        who = f"clients from outside {are} dropped: " if is_from_outside else ""
        served.append(f"{who}{told(cause, subject.now)}")
    # What is served elsewhere by design.
    served += [str(one) for one in ports[0].notes if one.code is CauseCode.NOT_OURS]
    return "; ".join(served)


def without_answer(ports: Sequence[PortFacts], subject: Subject) -> PortFacts | None:
    """Return the port that :func:`served_sentence` is about, as nothing has ever come back there.

    None: it is about all ports.
    """
    is_other = any(port.is_unseen or port.state.word.expected for port in ports)
    if is_other or subject.node is None:
        return None
    return next(filter(is_silent, ports), None)


def _by_endpoints(ports: Sequence[PortFacts], subject: Subject, dials: Dials) -> list[str]:
    """Return by how many endpoints clients are served, and whether one has been."""
    by = serving_in_words(ports[0])
    if subject.node is None:
        return [f"Clients would be served by {by}", *_pinned(ports)]
    served = f"Clients are served by {by}"
    if led := [port for port in ports if port.is_unseen]:
        served = _led(led, dials)
    elif silent := without_answer(ports, subject):
        served = served_in_words(silent)
    elif all(port.is_without_answer or port.is_quiet for port in ports):
        last = max(ports, key=lambda port: port.sent_at)
        served = with_age(served_in_words(last), last, subject.now)
    parts = [served, *_pinned(ports)]
    is_counted = all(port.kernel_connections is not None for port in led)
    if led and is_counted and not any(p.connections or p.kernel_connections for p in ports):
        parts.append("no client has connected yet")
    return parts


def policy_drops(port: PortFacts) -> Cause | None:
    """Return why the traffic policy drops clients now, and how many it has; None: it doesn't."""
    if not port.is_dropping or port.cause is None:
        return None
    met = (cause for cause in port.turned_away if cause.code is port.cause.code)
    return next(met, port.cause)


def _led(ports: Sequence[PortFacts], dials: Dials) -> str:
    """Return what is known of the clients that the kernel leads straight to endpoints."""
    used = [endpoint for port in ports for endpoint in port.endpoints if endpoint.is_usable]
    return capitalised(
        led_in_words(
            serving_in_words(ports[0]),
            "probes"
            if all(port.is_probed for port in ports)
            # One that failed would be the sentence.
            else "dials from this machine"
            if all(endpoint.address in dials for endpoint in used)
            else "",
        )
    )


def _pinned(ports: Sequence[PortFacts]) -> Iterator[str]:
    """Yield how long each client stays with one of several endpoints, if it does."""
    for port in ports[:1]:
        if port.affinity_timeout_s is not None and port.usable > 1:
            within = seconds_in_words(port.affinity_timeout_s)
            yield f"each client keeps to one, until it is away for {within} (sessionAffinity)"


def told(cause: Cause, now: float) -> str:
    """Return a cause with how often it was seen, and when."""
    return f"{cause.sentence}{times_in_words(cause.count, cause.last_at, now)}"
