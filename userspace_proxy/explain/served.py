"""Words how the clients of a Service are served where no step of their path is wrong.

Rule 1: the present tense is for clients that have been answered in the last minute.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..causes.cause import Cause
from ..causes.say import say
from ..diagnosis.clauses import Clause, by_endpoints, joined, led_by_kernel, sentence_of
from ..diagnosis.dated import cause_at, last_answer
from ..diagnosis.rules import is_silent, served_clauses
from ..facts import PortFacts
from ..facts.units import seconds_in_words
from .dial_steps import Dials
from .explanation import Subject


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
        served.append(f"{who}{cause_at(cause, subject.now)}")
    # What is served elsewhere by design.
    served += [say(one) for one in ports[0].notes if one.code.traits.is_by_design]
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
    by = by_endpoints(ports[0].serving, ports[0].standby)
    if subject.node is None:
        return [f"Clients would be served by {by}", *_pinned(ports)]
    served = f"Clients are served by {by}"
    if led := [port for port in ports if port.is_unseen]:
        served = _led(led, dials)
    elif silent := without_answer(ports, subject):
        served = sentence_of(served_clauses(silent))
    elif all(port.is_without_answer or port.is_quiet for port in ports):
        last = max(ports, key=lambda port: port.sent_at)
        served = joined(_at(clause, last, subject.now) for clause in served_clauses(last))
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


def _at(clause: Clause, port: PortFacts, now: float) -> str:
    age = last_answer(port, now) if clause.row.is_dated else ""
    return f"{clause.text} ({age})" if age else clause.text


def _led(ports: Sequence[PortFacts], dials: Dials) -> str:
    """Return what is known of the clients that the kernel leads straight to endpoints."""
    first, shown = ports[0], ""
    used = [endpoint for port in ports for endpoint in port.endpoints if endpoint.is_usable]
    if all(port.is_probed for port in ports):
        shown = "probes"
    elif all(endpoint.address in dials for endpoint in used):
        # One that failed would be the sentence.
        shown = "dials from this machine"
    service = f"{first.namespace}/{first.service}"
    led = led_by_kernel(first.serving, first.standby, service, first.protocol, shown)
    return sentence_of([led])


def _pinned(ports: Sequence[PortFacts]) -> Iterator[str]:
    """Yield how long each client stays with one of several endpoints, if it does."""
    for port in ports[:1]:
        if port.affinity_timeout_s is not None and port.usable > 1:
            within = seconds_in_words(port.affinity_timeout_s)
            yield f"each client keeps to one, until it is away for {within} (sessionAffinity)"
