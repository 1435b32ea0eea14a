"""Checks settings and manifests before anything is served."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..agent.rounds.options import Options
from ..causes.say import remedy, say
from ..cluster import Snapshot
from ..cluster.from_names import before_lookups
from ..errors import ConfigError, UserspaceProxyError
from ..facts.units import plural
from ..kernel.interface_addresses import list_addresses
from ..kernel.offers import KernelOffers
from ..model import Frontend, ServiceKey, SocketAddress
from ..plan import IgnoredService, Plan, Planner
from ..policy.node_facts import ADDRESSES_WITHOUT_STEERING, make_facts, options_with
from ..sources.manifests import load_state
from ..steering.selection import find_no_kernel_path
from .finding import Finding, error, ok, reason, warning

# The maximum number of Services that a finding names; further Services are only counted.
_NAMED_MAX = 5
_WARNINGS_MAX = 20
"""The maximum number of warnings of one kind."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """The objects that ``run`` would serve, as far as they are known."""

    service_ports: int | None = None
    """The number of Service ports of both families; None if unknown."""
    service_ips: tuple[str, ...] = ()
    """At most one Service address per family; empty if unknown."""
    frontends: tuple[Frontend, ...] = ()
    """The addresses that clients would dial; empty if unknown."""
    endpoints: tuple[SocketAddress, ...] = ()
    """The usable endpoints; empty if unknown."""


def judge_settings(
    warnings: Sequence[str], config_file: str, problem: ConfigError | None = None
) -> list[Finding]:
    """Report the problems found in the flags and the configuration file.

    Args:
        warnings: The reader's warnings.
        config_file: The file's path; empty without a file.
    """
    found = [warning("config", line, config_file) for line in warnings]
    if problem is not None:
        found.insert(0, error("config", problem.message, hint=problem.hint))
    return found or [ok("config", "flags and file are valid" if config_file else "flags are valid")]


def look_at_manifests(
    path: str,
    *,
    options: Options,
    steering: str,
    service_cidrs: Sequence[str],
    kernel: KernelOffers,
) -> tuple[list[Finding], Inputs]:
    """Read and plan manifests as ``run`` would; return findings, and what ``run`` would serve.

    Args:
        steering: The steering that ``run`` would use; empty if none works here.
        kernel: The kernel's features.
    """
    try:
        addresses = ADDRESSES_WITHOUT_STEERING if steering == "none" else list_addresses()
        state = load_state(path, node_name=options.node_name, service_cidrs=service_cidrs)
    except UserspaceProxyError as exc:
        return [error("manifests", reason(exc))], Inputs()
    found = [error("manifests", line) for line in state.problems]
    found += _limit([warning("manifests", line) for line in state.findings], "keys given twice")
    snapshot = before_lookups(state.snapshot, options.allow_endpoint_names)
    no_kernel_path = find_no_kernel_path(steering, kernel)
    facts = make_facts(options_with(steering, options), snapshot, addresses, no_kernel_path)
    plan = Planner(facts).plan(snapshot)
    if (no_node := facts.no_node) is not None:
        found.append(warning("manifests", say(no_node), path, remedy(no_node)))
    found += judge_plan(plan, state.place_of)
    if not state.problems:
        found.insert(0, ok("manifests", f"{plural(len(snapshot.services), 'Service')} read", path))
    ports = plan.ports.values()
    frontends = (frontend for port in ports for frontend in port.frontends)
    endpoints = (one for port in ports for one in port.serving.endpoints)
    return found, Inputs(
        len(plan.ports), some_ips(snapshot), tuple(frontends), tuple(dict.fromkeys(endpoints))
    )


def judge_plan(plan: Plan, place_of: Callable[[ServiceKey], str]) -> list[Finding]:
    """Report Services without a listener, Services that would refuse clients, and notes."""
    found = [
        error(
            "manifests",
            f"{_subject(item)} would not be served: {say(item.cause)}",
            place_of(item.service),
            remedy(item.cause),
        )
        for item in plan.ignored
        if item.is_conflict and not item.is_part
    ]
    found += _limit(_refusing(plan, place_of), "Service ports would refuse clients")
    found += _limit(_notes(plan, place_of), "fields and annotations have no effect")
    skipped = [
        f"{_subject(item)} ({say(item.cause)})" for item in plan.ignored if not item.is_conflict
    ]
    if skipped:
        more = f" and {len(skipped) - _NAMED_MAX} more" if len(skipped) > _NAMED_MAX else ""
        names = ", ".join(skipped[:_NAMED_MAX])
        found.append(ok("manifests", f"no listener by design for {names}{more}"))
    return found


def _subject(item: IgnoredService) -> str:
    return f"{f'port {item.port} of ' if item.port else ''}Service {item.service}"


def _refusing(plan: Plan, place_of: Callable[[ServiceKey], str]) -> list[Finding]:
    """Return a warning for each Service port that would refuse clients, and each of its causes."""
    causes = {
        (port.key.name, port.cause): None
        for port in plan.ports.values()
        if port.cause is not None and port.serving.is_refusing
    }
    return [
        warning(
            "manifests",
            f"{name} would refuse clients: {say(cause)}",
            place_of(name.service),
            remedy(cause),
        )
        for name, cause in causes
    ]


def _notes(plan: Plan, place_of: Callable[[ServiceKey], str]) -> list[Finding]:
    """Return a warning for each field or annotation of a Service that has no effect."""
    notes = {
        (port.key.name.service, note): None
        for port in plan.ports.values()
        for note in port.notes
        if note != port.cause
    }
    return [
        warning("manifests", f"Service {service}: {say(note)}", place_of(service), remedy(note))
        for service, note in notes
    ]


def _limit(found: list[Finding], what: str) -> list[Finding]:
    if len(found) <= _WARNINGS_MAX:
        return found
    more = warning("manifests", f"{len(found) - _WARNINGS_MAX} more {what}")
    return [*found[:_WARNINGS_MAX], more]


def some_ips(snapshot: Snapshot) -> tuple[str, ...]:
    """Return the first cluster IP of each family."""
    firsts: dict[bool, str] = {}
    for state in snapshot.services.values():
        for ip in state.service.cluster_ips:
            firsts.setdefault(":" in ip, ip)
    return tuple(firsts[family] for family in sorted(firsts))
