"""Mutants of how workers, and clients' dials, end, and of what was counted last."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from ..mutant_table import Mutant

_plane = partial(Mutant, package="plane")

MUTANTS: Mapping[str, Mutant] = {
    "last-counts-of-those-that-left-are-lost": _plane(
        "differences",
        "            if self._group.find_counters(endpoint) is not counters:\n",
        "            if endpoint in self._group.serving.all_endpoints:\n",
    ),
    "clients-have-less-time-than-a-dial": Mutant(
        "tcp_connections",
        "loop, clock, tuning.client_timeout_s, TcpDial",
        "loop, clock, 0.8 * tuning.connect_timeout_s, TcpDial",
        package="dataplane",
    ),
}
