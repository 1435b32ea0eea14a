"""Decides whether the traffic of a Service port takes the userspace path or the kernel path.

annotation, if allowed, or --path ──▶ needs the proxy? ──▶ supported by steering? ──▶ path, reason
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Sequence
from typing import NamedTuple

from ..causes.cause import Cause
from ..causes.notes import kernel_path_unused, path_not_allowed
from ..model import Balance, DataPath, Handling


class PathDecision(NamedTuple):
    """The path of a Service port."""

    path: DataPath
    """The path; with ``AUTO``, probes decide while the port is served."""
    why: str = ""
    """The reason, as a clause; empty for the userspace path by default."""
    note: Cause | None = None
    """Why the annotation has no effect; None if it has an effect, or is missing."""


# The maximum number of slots in kernel rules, which repeat endpoints to reflect their weights.
PARTS_MAX = 256
COARSE_PARTS = 32
"""The number of slots for coarse weights, in addition to one per endpoint."""
# The balance modes that kernel rules support, which choose at random or by a hash of the client's
# address.
_IN_KERNEL = (Balance.ROUND_ROBIN, Balance.RANDOM, Balance.SOURCE_HASH)
DEFAULT_PATH = PathDecision(DataPath.USERSPACE)


def choose_path(
    handling: Handling,
    default: DataPath,
    no_kernel_path: str,
    *,
    allowed: Container[DataPath | None] = tuple(DataPath),
    has_affinity: bool = False,
    weights: Iterable[int] = (),
) -> PathDecision:
    """Return the path of a Service's ports.

    Args:
        default: The path without an annotation: ``--path``.
        no_kernel_path: Why there is no kernel path; empty if there is one.
        allowed: The paths that the annotation may choose.
        has_affinity: Whether the Service has session affinity.
        weights: The weights of the Service's usable endpoints; empty if all are equal.
    """
    asked = handling.path if handling.path in allowed else None
    note = None
    if asked is not handling.path:
        note = path_not_allowed(str(handling.path))
    path = asked or default
    if path is DataPath.USERSPACE:
        if asked is None and note is None:
            return DEFAULT_PATH
        return PathDecision(path, "its annotation asks for it" if asked else "", note)
    parts = sum(in_parts(tuple(weights)))
    needs = next(iter(proxy_only(handling, parts=parts)), "")
    if not needs and path is DataPath.AUTO:
        needs = _is_for_one_path(handling, has_affinity=has_affinity)
    if not needs and not no_kernel_path:
        why = "its annotation asks for it" if asked else f"--path={path} is the default"
        return PathDecision(path, why, note)
    why = f"{needs} needs the proxy" if needs else no_kernel_path
    # Only a user who asked for the kernel path gets a note.
    if asked is DataPath.KERNEL:
        note = kernel_path_unused(why)
    return PathDecision(DataPath.USERSPACE, why, note)


def in_parts(weights: Sequence[int]) -> list[int]:
    """Return the smallest integers in the same proportions as the weights."""
    divisor = math.gcd(*weights) or 1
    return [weight // divisor for weight in weights]


def in_coarse_parts(parts: Sequence[int]) -> list[int]:
    """Return fewer slots in nearly the same proportions; only a weight of 0 becomes 0."""
    scale = min(1.0, COARSE_PARTS / max(1, sum(parts)))
    return [max(1, round(part * scale)) if part else 0 for part in parts]


def _is_for_one_path(handling: Handling, *, has_affinity: bool) -> str:
    """Return the setting for which the paths choose different endpoints; empty if there is none.

    With such a setting, switching the path would move clients to other endpoints.
    """
    if has_affinity:
        return "session affinity with path auto"
    return "balance source-hash with path auto" if handling.balance is Balance.SOURCE_HASH else ""


def proxy_only(handling: Handling, *, parts: int = 0) -> list[str]:
    """Return the requested features that only the proxy supports.

    Args:
        parts: The sum of the weights, as :func:`in_parts` reduces them.
    """
    needs = {
        f"balance {handling.balance}": handling.balance not in _IN_KERNEL,
        "hold": handling.hold is not None,
        "max-connections": handling.max_connections is not None,
        "proxy-protocol": handling.proxy_protocol is not None,
        "on-endpoint-removal": handling.removal_s is not None,
        "slow-start": handling.slow_start_s > 0,
        f"a choice by weights of {parts} parts": parts > PARTS_MAX,
    }
    return [what for what, is_asked in needs.items() if is_asked]
