"""Describes how a Service's clients are served if no step of their path is wrong.

Rule 1: the present tense means that clients were answered in the last minute.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..causes.cause import Cause
from ..causes.say import say
from ..diagnosis.clauses import joined, no_client_yet, served_by
from ..diagnosis.dated import cause_at, last_answer
from ..diagnosis.rules import is_silent, served_clauses
from ..facts import PortFacts
from ..facts.units import format_seconds
from .dial_steps import Dials
from .explanation import Subject


def served_sentence(ports: Sequence[PortFacts], subject: Subject, dials: Dials) -> str:
    """Return the sentence if no step of the path is wrong."""
    if not ports:
        return f"{subject.service} has no ports"
    expected = [port for port in ports if port.state.word.expected]
    if expected:
        return expected[0].state.sentence
    served = [*_by_endpoints(ports, subject, dials), *_pinned(ports)]
    led = [] if subject.node is None else [port for port in ports if port.is_unseen]
    is_counted = all(port.kernel_connections is not None for port in led)
    if led and is_counted and not any(p.connections or p.kernel_connections for p in ports):
        served.append(no_client_yet().text)
    policies = [policy_drops(port) for port in ports]
    dropped = {port.turned_away[0]: False for port in ports if port.turned_away}
    dropped |= {cause: True for cause in policies if cause is not None}
    are = "would be" if subject.node is None else "are"
    for cause, is_from_outside in dropped.items():
        # A policy's cause states only why; a source range's cause also states who.
        who = f"clients from outside {are} dropped: " if is_from_outside else ""
        served.append(f"{who}{cause_at(cause, subject.now)}")
    # Addresses that are served elsewhere by design.
    served += [say(one) for one in ports[0].notes if one.code.traits.is_by_design]
    return joined(served)


def without_answer(ports: Sequence[PortFacts], subject: Subject) -> PortFacts | None:
    """Return the port without any answer that :func:`served_sentence` is about.

    None if the sentence is about all ports.
    """
    is_other = any(port.is_unseen or port.state.word.expected for port in ports)
    if is_other or subject.node is None:
        return None
    return next(filter(is_silent, ports), None)


def _by_endpoints(ports: Sequence[PortFacts], subject: Subject, dials: Dials) -> Iterator[str]:
    """Yield how many endpoints serve clients, and whether any client has been served."""
    by = served_by(ports[0].serving, ports[0].standby)
    led = [port for port in ports if port.is_unseen]
    about, shown = without_answer(ports, subject), ""
    if led:
        about = min(led, key=lambda port: port.is_probed)
        used = [endpoint for port in led for endpoint in port.endpoints if endpoint.is_usable]
        # A failed dial would decide the sentence.
        is_dialled = all(endpoint.address in dials for endpoint in used)
        shown = "dials from this machine" if is_dialled else ""
    elif all(port.is_without_answer or port.is_quiet for port in ports):
        about = about or max(ports, key=lambda port: port.sent_at)
    if subject.node is None:
        yield by.planned
    elif about is None:
        yield f"clients are {by.text}"
    else:
        for clause in served_clauses(about, shown=shown):
            age = last_answer(about, subject.now) if clause.row.is_dated else ""
            yield f"{clause.text} ({age})" if age else clause.text


def policy_drops(port: PortFacts) -> Cause | None:
    """Return why the traffic policy drops clients, and how many so far; None if it doesn't."""
    if not port.is_dropping or port.cause is None:
        return None
    met = (cause for cause in port.turned_away if cause.code is port.cause.code)
    return next(met, port.cause)


def _pinned(ports: Sequence[PortFacts]) -> Iterator[str]:
    """Yield the duration of session affinity if there are several endpoints."""
    for port in ports[:1]:
        if port.affinity_timeout_s is not None and port.usable > 1:
            within = format_seconds(port.affinity_timeout_s)
            yield f"each client keeps to one, until it is away for {within} (sessionAffinity)"
