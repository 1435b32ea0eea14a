"""Judges the dials of ``explain --probe``, in view of what clients experienced.

    dial ──failed──▶ did clients dial lately? ──yes──▶ a further line
                                              └──no──▶ the dial decides

Rule 1: clients' experience decides, not this program's dial, which has another source address,
sends nothing, and may fail for its own reasons. The dial decides if no client has dialled lately.
Rule 2: a machine without a route to an address proves nothing, unless it is the proxy's node.
Rule 3: a dial proves only that connections are accepted (at a Service's address, by the proxy), not
that requests are answered. If clients fail anyway, the step says so and isn't marked as good.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from ..causes.cause import Cause
from ..causes.say import Form, remedy, say
from ..facts import LAST_MINUTE_S, EndpointFacts, Level, PortFacts
from ..facts.units import format_seconds, plural
from .dial import DialResult
from .explanation import PathStep

Dials = Mapping[str, DialResult]
"""The results of dials, by address."""


UNREACHED = PathStep(
    None,
    "dial",
    "Nothing was dialled: the proxy is in another network namespace, and this program can't enter "
    "it",
    "Run this as root on the proxy's node, or in its container if that has PIDs of its own",
)


def with_hosts(ports: Iterable[PortFacts], dials: Dials) -> Dials:
    """Return dials whose remedies for endpoints by DNS name are about hosts, not pods."""
    hosts = {e.address: e.host for port in ports for e in port.endpoints if e.host}
    return {
        at: replace(result, cause=result.cause.replace(host=hosts[at]))
        if at in hosts and result.cause is not None
        else result
        for at, result in dials.items()
    }


def dial_address(port: PortFacts, address: str, result: DialResult) -> PathStep:
    """Return the step about the dial of a Service's address."""
    if result.cause is None:
        what = f"{address} accepts a connection {_after(result)}"
        if port.is_unseen or port.state.level is Level.OK:
            return PathStep(Level.OK, "dial", what)
        return PathStep(None, "dial", f"{what}, as the proxy does before it dials")
    # Many Service addresses can be dialled only from nodes and pods.
    is_known = port.connections or port.admits is not None
    is_known = is_known or not (port.is_unseen or port.mark is Level.OK)
    level = None if is_known or result.has_no_route else Level.ATTENTION
    return PathStep(level, "dial", f"{address}, from this machine: {result.error}")


def clients_show(endpoint: EndpointFacts, now: float) -> bool:
    """Return whether recent clients have shown if an endpoint answers."""
    if endpoint.cause is not None:
        return not endpoint.is_past
    return endpoint.answered_at > 0 and now - endpoint.answered_at < LAST_MINUTE_S


def _level_of_failed(endpoint: EndpointFacts, now: float) -> Level | None:
    """Return the severity of a failed dial to a used endpoint."""
    if clients_show(endpoint, now):
        return None
    was_answered = endpoint.cause is None and endpoint.answered_at
    return Level.ATTENTION if was_answered else Level.TROUBLE


def _beside_clients(endpoint: EndpointFacts, cause: Cause, now: float) -> str:
    """Return how a dial failed, compared with what clients experienced."""
    if _is_as_clients(endpoint, cause):
        return ", as for clients"
    said = f": {say(cause)}"
    if endpoint.cause is not None:
        return f"{said}; clients: {say(endpoint.cause, Form.SHORT)}"
    if not endpoint.answered_at:
        return said
    age = format_seconds(max(0.0, now - endpoint.answered_at))
    return f"{said}; it answered a client {age} ago"


def _is_as_clients(endpoint: EndpointFacts, cause: Cause) -> bool:
    """Return whether clients failed like the dial, which another step reports with its remedy."""
    return endpoint.cause is not None and endpoint.cause.code is cause.code


def dial_steps(
    port: PortFacts, dials: Dials, now: float, *, is_planned: bool
) -> Iterator[PathStep]:
    """Yield a step about the dialled endpoints, and one about those that weren't dialled.

    Args:
        now: Unix time of the facts.
        is_planned: The facts come from a plan, not from a proxy in whose network was dialled.
    """
    if refused := sum(endpoint.is_refused for endpoint in port.endpoints):
        them = plural(refused, "endpoint")
        yield PathStep(Level.OK, "dial", f"{them} not dialled, because the proxy refuses to")
    dialled = [(e, dials[e.address]) for e in port.endpoints if e.address in dials]
    rest = sum(not e.is_refused and e.address not in dials for e in port.endpoints)
    if rest and dials and port.protocol == "TCP":
        them = plural(rest, "endpoint")
        yield PathStep(Level.OK, "dial", f"{them} not dialled, because the Service has so many")
    if not dialled:
        return
    used = [(endpoint, result) for endpoint, result in dialled if endpoint.is_usable]
    unrouted = [e for e, result in used if is_planned and result.has_no_route]
    failed = {
        endpoint.address: (_level_of_failed(endpoint, now), endpoint, result.cause)
        for endpoint, result in used
        if result.cause is not None and endpoint not in unrouted
    }
    # An endpoint that accepts connections may still fail its clients.
    accepting = [endpoint for endpoint, result in used if result.cause is None]
    unlike = [one for one in accepting if one.cause is not None and not one.is_past]
    levels = {at: one[0] for at, one in failed.items()}
    levels |= {endpoint.address: None for endpoint in (*unrouted, *unlike)}
    details = tuple(
        _dial(endpoint, result, levels.get(endpoint.address, Level.OK))
        for endpoint, result in dialled
    )
    if failed:
        order = (*reversed(Level), None)
        level, endpoint, cause = min(failed.values(), key=lambda one: order.index(one[0]))
        brief = f"{len(failed):,} of {plural(len(used), 'used endpoint')} failed"
        what = f"{brief}{_beside_clients(endpoint, cause, now)}"
        hint = "" if _is_as_clients(endpoint, cause) else remedy(cause)
        yield PathStep(level, "dial", what, hint, details, brief=brief)
    elif unrouted:
        what = f"This machine has no route to {len(unrouted):,} of {plural(len(used), 'endpoint')}"
        yield PathStep(None, "dial", what, "Run this on a node, which has routes to pods", details)
    else:
        what = f"{plural(len(used), 'used endpoint')} dialled from this machine, without a failure"
        if not used:
            what = (
                f"{plural(len(dialled), 'endpoint')} dialled from this machine, none of them used"
            )
        if unlike:
            what = f"{what}: that shows only that connections are accepted, not that they work"
        yield PathStep(None if unlike else Level.OK, "dial", what, details=details)


def _dial(
    endpoint: EndpointFacts, result: DialResult, level: Level | None
) -> tuple[Level | None, str]:
    """Return the level of one dial and a line about it, given a used endpoint's level."""
    used = "" if endpoint.is_usable else f" ({endpoint.state})"
    if result.cause is None:
        return level, f"{endpoint.address}{used}: accepts a connection {_after(result)}"
    return (
        level if endpoint.is_usable else Level.ATTENTION,
        f"{endpoint.address}{used}: {result.error} {_after(result)}",
    )


def _after(result: DialResult) -> str:
    # Most answers take less than a millisecond.
    return (
        f"after {result.seconds * 1000:.1f} ms"
        if result.seconds < 0.1
        else (f"after {format_seconds(result.seconds)}")
    )
