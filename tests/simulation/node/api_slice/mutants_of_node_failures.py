"""Faults in what a source makes of a Node that it may not read, or that fails alone."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from ...mutant_table import Mutant

_source = partial(Mutant, package="sources.kubernetes")

MUTANTS: Mapping[str, Mutant] = {
    "api-denied-node-is-waited-for": _source(
        "source",
        "all(reflector.is_listed or reflector.is_forbidden for",
        "all(reflector.is_listed for",
    ),
    "api-node-stays-denied-after-another-error": _source(
        "reflector",
        "self.is_forbidden = response.code == 403",
        "self.is_forbidden = self.is_forbidden or response.code == 403",
    ),
    "api-node-that-fails-is-current": _source(
        "source",
        "            *(r.problem_since for r in node if r.problem and not r.is_forbidden),\n",
        "",
    ),
    "api-node-without-credentials-is-denied": _source(
        "reflector", "response.code == 403", "response.code in (401, 403)"
    ),
    "api-denied-services-arent-waited-for": _source(
        "source",
        "if not all(reflector.is_listed for reflector in required)",
        "if not all(reflector.is_listed or reflector.is_forbidden for reflector in required)",
    ),
}
