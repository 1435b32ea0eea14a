"""Checks whether this node's connect() calls can be translated, as ``--socket-lb`` requests."""

from __future__ import annotations

from pathlib import Path

from ..errors import SteeringError
from ..kernel.offers import KernelOffers
from ..steering.socket_lb import HookOptions, HookPlace, find_place
from .finding import Finding, error, ok, warning

_TOPIC = "socket LB"
# Every cgroup except the root has this file. Source: cgroup-v2.rst.
_NOT_IN_THE_ROOT = "cgroup.events"
_NAME_A_FOLDER = "mount the node's root of cgroup v2, as the chart's socketLB does"


def look_at_hooks(
    wanted: HookOptions | None, taken: str, kernel: KernelOffers, names: Path | None = None
) -> list[Finding]:
    """Find the cgroup for the hooks as ``run`` does; report it, or why there is none.

    Args:
        wanted: The requested hooks; None without.
        taken: The chosen steering; empty if none works here.
    """
    if wanted is None:
        return []
    if taken == "nftables":
        try:
            return judge_place(find_place(wanted, kernel, names))
        except SteeringError as exc:
            what, hint = exc.message, exc.hint
    else:
        flag = f"--socket-lb={'required' if wanted.is_required else 'auto'}"
        what = f"{flag} has no effect: steering {taken or 'none'} has no kernel path"
        hint = "--steering=nftables, or --socket-lb=off"
    return [(error if wanted.is_required else warning)(_TOPIC, what, hint=hint)]


def judge_place(place: HookPlace) -> list[Finding]:
    """Report other BPF programs at the same hooks, and the processes that are translated."""
    cgroup = str(place.cgroup)
    found = [warning(_TOPIC, one.what, one.where, one.hint) for one in place.others]
    if (place.cgroup / _NOT_IN_THE_ROOT).exists():
        part = (
            "this isn't the root of cgroup v2: only programs in it are translated at connect(), "
            "rules lead the others"
        )
        return [*found, warning(_TOPIC, part, cgroup, _NAME_A_FOLDER)]
    return [*found, ok(_TOPIC, "connect() of this node's programs can be translated", cgroup)]
