"""Derives the kernel's choices of endpoints, and the clients of each choice, from a plan.

Rule 1: clients that match no choice are steered to the proxy port, whose socket drops or refuses
them, as on the userspace path. A UDP range always refuses them, because a socket doesn't see the
dialled port.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence

from ...balance import fill_slots
from ...model import Balance, Frontend, SocketAddress, intersect, is_loopback
from ...model.serving import Serving
from ...plan import PortPlan
from ...policy.path import in_coarse_parts, in_parts
from ...steering import REFUSE, Affinity, EndpointChoice, KernelTarget, Refusal, Target


def kernel_targets(
    plan: PortPlan,
    targets: Mapping[Frontend, Target],
    choices: tuple[EndpointChoice, ...],
    *,
    is_in_kernel: bool,
) -> dict[Frontend, Target]:
    """Return the targets of a Service port that is, or was, on the kernel path.

    Args:
        targets: The Service port's proxy ports and refusals.
        choices: The choices of the Service port's plan.
        is_in_kernel: Whether new connections take the kernel path now.
    """
    serving = plan.serving
    timeout_s = serving.affinity_timeout_s
    by_client = serving.handling.balance is Balance.SOURCE_HASH
    affinity = None if timeout_s is None else _affinity(plan, timeout_s)
    found: dict[Frontend, Target] = {}
    for frontend, target in targets.items():
        found[frontend] = REFUSE if frontend.is_udp_range else target
        # Clients that dial a loopback address have a loopback address, which can't leave the node,
        # so the proxy serves them.
        if isinstance(target, Refusal | KernelTarget) or is_loopback(frontend.ip):
            continue
        if choices or not frontend.is_udp_range:
            port = REFUSE if frontend.is_udp_range else target
            by = frontend.port - serving.ranges[0].number if frontend.last else 0
            moved = _moved(choices, by) if by else choices
            found[frontend] = KernelTarget(port, moved, affinity, is_in_kernel, by_client, plan.key)
    return found


def _affinity(plan: PortPlan, timeout_s: int) -> Affinity:
    """Return a Service port's affinity; ports of its range or Service may share the entries."""
    serving, key = plan.serving, plan.key
    if not serving.handling.shares_affinity:
        return Affinity(str(key), timeout_s, is_of_pods=bool(serving.ranges))
    of_service = key._replace(name=key.name._replace(port=""))
    return Affinity(f"{of_service} (all ports)", timeout_s, is_of_pods=True)


# The result is cached, because all frontends of a range have the same choices and the same shift.
@functools.lru_cache(maxsize=256)
def _moved(choices: tuple[EndpointChoice, ...], by: int) -> tuple[EndpointChoice, ...]:
    """Return the choices with every endpoint port shifted, for the first port of a range.

    Args:
        by: The range's first port minus the Service port's number.
    """
    return tuple(
        EndpointChoice(tuple([SocketAddress(ip, port + by) for ip, port in endpoints]), networks)
        for endpoints, networks in choices
    )


def choices_of(
    serving: Serving, *, is_coarse: bool = False, is_in_kernel: bool = True
) -> Iterator[EndpointChoice]:
    """Yield the choices of endpoints; the first choice whose networks contain a client applies.

    Args:
        is_coarse: Whether to approximate weights with few slots.
        is_in_kernel: If False, a choice contains each endpoint once, regardless of weights.
    """
    weights = dict(serving.weights)
    for endpoints, networks in _usable(serving):
        if not is_in_kernel:
            yield EndpointChoice(endpoints, networks)
        elif serving.handling.balance is Balance.SOURCE_HASH:
            yield EndpointChoice(fill_slots(endpoints, weights, is_coarse=is_coarse), networks)
        elif weights:
            repeated = _repeat(endpoints, weights, is_coarse=is_coarse)
            yield EndpointChoice(tuple(repeated), networks)
        else:
            yield EndpointChoice(endpoints, networks)


def endpoints_of(serving: Serving) -> Iterator[SocketAddress]:
    """Yield the endpoints of all choices of a Service port, some of them repeatedly."""
    for endpoints, _ in _usable(serving):
        yield from endpoints


def _usable(
    serving: Serving,
) -> Iterator[tuple[tuple[SocketAddress, ...], tuple[str, ...] | None]]:
    """Yield non-empty sets of endpoints, and their clients' networks; None for all clients."""
    admits, inside = serving.admits, serving.inside
    of = [(serving.endpoints, admits)]
    if serving.outside is not None:
        inside = inside if admits is None else intersect(admits, inside)
        of = [(serving.endpoints, inside), (serving.outside, admits)]
    for usable, networks in of:
        endpoints = serving.first_of(usable)
        if endpoints and networks != ():
            yield endpoints, networks


def _repeat(
    endpoints: Sequence[SocketAddress],
    weights: Mapping[SocketAddress, int],
    *,
    is_coarse: bool,
) -> list[SocketAddress]:
    """Return each endpoint repeated in proportion to its weight."""
    parts = in_parts([weights.get(endpoint, 0) for endpoint in endpoints])
    if is_coarse:
        parts = in_coarse_parts(parts)
    return [one for one, count in zip(endpoints, parts, strict=True) for _ in range(count)]
